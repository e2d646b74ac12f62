package service

import (
	"mailsidecar/config"
	"mailsidecar/diagnosis"
	"mailsidecar/relays"
)

// AdviceSettings is what [diagnosis] needs to know of a relay's settings.
func AdviceSettings(c config.Relay) diagnosis.Settings {
	s := diagnosis.Settings{Number: c.Number, Grant: grantOf(c.OAuth2)}
	if issuer, ok := relays.IssuerAt(c.OAuth2.TokenURL); ok {
		s.Issuer = issuer.Name
	}
	return s
}

func grantOf(o config.OAuth2) diagnosis.Grant {
	switch {
	case !o.Configured():
		return diagnosis.NoGrant
	case !o.Fetched():
		return diagnosis.GrantGiven
	case !o.RefreshToken.IsSet() && o.ClientSecret.IsSet():
		return diagnosis.GrantClient
	default:
		return diagnosis.GrantLogin
	}
}
