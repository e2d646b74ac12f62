package service

import (
	"slices"
	"strings"
	"time"

	"mailsidecar/api"
	"mailsidecar/config"
	"mailsidecar/diagnosis"
	"mailsidecar/handler"
	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
	"mailsidecar/relays"
)

// AdviceSettings is what [diagnosis] needs to know of a relay's settings.
func AdviceSettings(c config.Relay) diagnosis.Settings {
	o := c.OAuth2
	return diagnosis.Settings{
		Number: c.Number, Others: c.Others, Grant: grantOf(c), Issuer: IssuerName(o), LoginURL: o.AuthorizeURL != "", DeviceURL: o.DeviceURL != "",
		Proof: proofOf(o), KeyFile: o.KeyFile != "", Auth: strings.TrimPrefix(c.Auth, "auto"),
		Provider: c.Provider, NoLogin: c.Auth == "none", Forced: forcedBy(c), ClientCertificate: c.TLSCertFile != "", TLS13: c.TLSMinVersion == "1.3",
	}
}

// forcedBy is the setting that chooses the reverse-path; empty where there is none.
func forcedBy(c config.Relay) string {
	switch {
	case c.ReturnPath != "":
		return "RETURN_PATH"
	case c.ForceFrom != "":
		return "FORCE_FROM"
	default:
		return ""
	}
}

func proofOf(o config.OAuth2) diagnosis.Proof {
	switch {
	case o.ClientSecret.IsSet():
		return diagnosis.ProofSecret
	case o.CertFile != "":
		return diagnosis.ProofCertificate
	case o.AssertionFile != "":
		return diagnosis.ProofAssertion
	default:
		return diagnosis.ProofNone
	}
}

// IssuerName is the OAuth2 provider that the settings name, or whose token endpoint they
// name; empty for one that is not known.
func IssuerName(o config.OAuth2) string {
	if o.Provider != "" {
		return o.Provider
	}
	issuer, _ := relays.IssuerAt(o.TokenURL)
	return issuer.Name
}

// grantOf returns how the relay gets its tokens. With an AUTH mechanism for passwords it
// uses none.
func grantOf(c config.Relay) diagnosis.Grant {
	o := c.OAuth2
	switch {
	case !o.Configured(), c.Auth != "" && c.Auth != "auto" && c.Auth != "xoauth2" && c.Auth != "oauthbearer":
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

// statusAdvice says what is wrong with a relay, as far as is known without asking it.
func statusAdvice(c config.Relay, r Relay, now handler.RelayStatus) []diagnosis.Advice {
	for _, f := range []*mailer.Failure{now.Failure, now.Logins.Failure} {
		if f != nil && (f.Class == mailer.ClassRelay || f.Cause != "") {
			told := smtp.ProblemOf(f) == smtp.ProblemToken
			return append([]diagnosis.Advice{adviceOn(c, f)}, tokenAdvice(AdviceSettings(c), r, told)...)
		}
	}
	return tokenAdvice(AdviceSettings(c), r, false)
}

// CheckAdvice says what a check has found out about a relay with those settings, and what
// to do.
func CheckAdvice(s diagnosis.Settings, r Relay, report smtp.Report) []diagnosis.Advice {
	told := slices.ContainsFunc(report.Rungs, func(rung smtp.RungCheck) bool {
		return rung.Failure != nil && rung.Failure.Problem == smtp.ProblemToken
	})
	return append(diagnosis.OfReport(report, s), tokenAdvice(s, r, told)...)
}

// tokenAdvice says what is wrong with the tokens of a relay, or will be. With failure
// told, only what will be.
func tokenAdvice(s diagnosis.Settings, r Relay, told bool) []diagnosis.Advice {
	st, ok := TokenStatus(r)
	if !ok {
		return nil
	}
	var all []diagnosis.Advice
	if st.Err != nil && !told {
		all = append(all, diagnosis.OfToken(st.Err, s))
	}
	for _, w := range st.Warnings {
		all = append(all, diagnosis.OfWarning(w, s))
	}
	for i := range all {
		all[i].Relay = r.Name()
	}
	return all
}

// OAuth2Status is how the access tokens of a relay fare, as clients are told it; nil
// where it uses none.
func OAuth2Status(r Relay) *api.OAuth2 {
	st, ok := TokenStatus(r)
	if !ok {
		return nil
	}
	o := &api.OAuth2{
		Account: mailer.Printable(st.Account, 320), TokenExpires: inUTC(st.Expires), LoginExpires: inUTC(st.LoginExpires),
		SecretExpires: inUTC(st.SecretExpires), CertificateExpires: inUTC(st.CertificateExpires), Retry: inUTC(st.Retry),
	}
	if st.Err != nil {
		o.Error = smtp.WithoutAddresses(st.Err)
	}
	for _, w := range st.Warnings {
		o.Warnings = append(o.Warnings, string(w.Kind))
	}
	return o
}

// inUTC is t in whole seconds; zero stays zero.
func inUTC(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(time.Second)
}

// forAPI is the advice as clients get it.
func forAPI(all []diagnosis.Advice) []api.Advice {
	var list []api.Advice
	for _, a := range all {
		list = append(list, api.Advice{Ports: a.Ports, Found: a.Found, Do: a.Do})
	}
	return list
}
