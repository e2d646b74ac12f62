package service

import (
	"mailsidecar/api"
	"mailsidecar/config"
	"mailsidecar/diagnosis"
	"mailsidecar/mailer"
	"mailsidecar/relays"
)

// AdviceSettings is what [diagnosis] needs to know of a relay's settings.
func AdviceSettings(c config.Relay) diagnosis.Settings {
	s := diagnosis.Settings{Number: c.Number, Grant: grantOf(c.OAuth2), Issuer: c.OAuth2.Provider}
	if issuer, ok := relays.IssuerAt(c.OAuth2.TokenURL); ok && s.Issuer == "" {
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
	case o.Grant() == config.GrantClient:
		return diagnosis.GrantClient
	case o.Grant() == config.GrantServiceAccount:
		return diagnosis.GrantServiceAccount
	default:
		return diagnosis.GrantLogin
	}
}

// adviceOn says what a failure shows of the relay that c describes.
func adviceOn(c config.Relay, f *mailer.Failure) diagnosis.Advice {
	ports := []int{f.Port}
	if f.Port == 0 {
		ports = nil
		for _, rung := range c.Ports {
			ports = append(ports, rung.Port)
		}
	}
	return diagnosis.OfFailure(f, c.Host, ports, AdviceSettings(c))
}

// forAPI is the advice as clients get it.
func forAPI(all ...diagnosis.Advice) []api.Advice {
	var list []api.Advice
	for _, a := range all {
		list = append(list, api.Advice{Ports: a.Ports, Found: a.Found, Do: a.Do})
	}
	return list
}
