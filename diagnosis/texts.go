package diagnosis

import "mailsidecar/mailer/smtp"

// adviceText is the advice for a problem before [Advice.expand]: $HOST is the
// relay's name, $PORTS/tls the ports in question with that mode, $LOGIN the command
// that logs in, and SMTP_ becomes the prefix of the relay's own variables. $SAID and
// $CAUSE are the words of relay and OAuth2 server, $NAMES, $ISSUER and $PIN those of a
// certificate, and $SENDER is an address; nothing is replaced in these. Of {this|that} a
// server says this, and a command that ends says that.
type adviceText struct{ found, do string }

// adviceTexts has one for each problem. [finding.text] knows where it depends on more.
var adviceTexts = map[smtp.Problem]adviceText{
	smtp.ProblemName: {
		"DNS has no address for $HOST.",
		"Check the spelling of SMTP_HOST. In a container, the name of another container is known only in a network that both share.",
	},
	smtp.ProblemNameFailed: {
		"the name $HOST could not be looked up: the name server answers with an error, or refuses.",
		"The fault is in the DNS of this machine or container, not in SMTP_HOST: see the name servers in /etc/resolv.conf, and with Docker the setting dns.",
	},
	smtp.ProblemNameSilent: {
		"the name $HOST could not be looked up: the name server does not answer.",
		"The fault is in the DNS of this machine or container, not in SMTP_HOST: see the name servers in /etc/resolv.conf, and that port 53 is open to them.",
	},
	smtp.ProblemRefused: {
		"the connection was refused: nothing listens there, or a firewall rejects it.",
		"Compare SMTP_HOST and SMTP_PORTS with what the provider names.",
	},
	smtp.ProblemNoAnswer: {
		"no answer: the packets are dropped. That is how hosting providers and firewalls block mail ports; a host that is down looks the same.",
		"Waiting longer does not help. Ask the hosting provider to open the port, or use another one.",
	},
	smtp.ProblemRejected: {
		"a router or firewall on the way rejects the connection: it says that $HOST cannot be reached, or that the connection is forbidden.",
		"Ask the hosting provider, or the administrator of the firewall, to allow it. If $HOST is on your own network, see that it is up.",
	},
	smtp.ProblemUnreachable: {
		"this machine has no route to $HOST.",
		"Check its routes and its network (ip route): a container in an internal network, or a machine without a default route, reaches nothing outside.",
	},
	smtp.ProblemBarred: {
		"this system forbids mailsidecar to connect there.",
		"Look for a rule that does so: IPAddressDeny in the systemd unit, a network policy, SELinux or AppArmor, or a route of the type prohibit.",
	},
	smtp.ProblemSilent: {
		"connected, but the relay said nothing.",
		"Often a firewall or proxy answers in the relay's place, or the port expects TLS from the first octet: try SMTP_PORTS=$PORTS/tls.",
	},
	smtp.ProblemDropped: {
		"the relay, or something on the way to it, closed the connection.",
		"Some relays do so for addresses that they block: ask the provider. A port that expects TLS from the first octet does so too: try SMTP_PORTS=$PORTS/tls.",
	},
	smtp.ProblemTurnedAway: {
		"the relay refuses connections from this machine's address.",
		"Its own words say why: mostly the address is on a block list, or the relay serves known addresses only. Ask the relay's provider to let it in.",
	},
	smtp.ProblemBusy: {
		"the relay takes no mail from here just now.",
		"{Nothing has to be done: mail waits and is tried again|Try again in some minutes}. If this stays, its own words say why: ask the provider.",
	},
	smtp.ProblemHelo: {
		"the relay refuses the name with which mailsidecar greets it (EHLO).",
		"Set SMTP_HELO to a domain of your own that has an address in DNS, such as app.example.com.",
	},
	smtp.ProblemTLSMode: {
		"the TLS mode is the wrong one: TLS from the first octet where the relay speaks STARTTLS, or the reverse.",
		"Say the mode with the port: SMTP_PORTS=$PORTS/starttls.",
	},
	smtp.ProblemNoSTARTTLS: {
		"the relay offers no STARTTLS, so no password and no mail is sent to it. Either it has none there, or a firewall strips the offer.",
		"Use a port with TLS, such as 465. For a relay on your own machine or private network only: SMTP_TLS=none.",
	},
	smtp.ProblemSTARTTLSRefused: {
		"the relay offers STARTTLS, and then refuses it.",
		"The relay's operator must mend its TLS. Until then use a port with TLS from the first octet, such as SMTP_PORTS=465.",
	},
	smtp.ProblemTLS: {
		"the TLS handshake failed: no version or cipher in common, or the relay broke it off.",
		"The relay must speak TLS 1.2 or newer. If it does, look for a proxy or firewall that intercepts the connection.",
	},
	smtp.ProblemIntercepted: {
		"the connection to $HOST is intercepted: the certificate is made by $ISSUER and not the relay's own.",
		"Exempt $HOST from the inspection of mail and TLS there, or use another port. Do not trust this certificate: its maker could read your password.",
	},
	smtp.ProblemExpired: {
		"the relay's certificate has expired.",
		"Check this machine's clock (date -u). If it is right, the relay's operator must renew the certificate.",
	},
	smtp.ProblemNotYetValid: {
		"the relay's certificate is not valid yet: most likely this machine's clock is behind.",
		"Set the clock (date -u shows it); virtual machines lose time when they are paused.",
	},
	smtp.ProblemWrongName: {
		"the relay's certificate is for another name than $HOST.",
		"If the relay's operator names one of the certificate's names as its host, set SMTP_HOST to that. Otherwise something redirects the connection: use another port, and do not trust the name.",
	},
	smtp.ProblemSelfSigned: {
		"the relay's certificate is signed by itself, and by no authority.",
		"For a relay of your own, name the certificate in SMTP_TLS_CA_FILE, or its key in SMTP_TLS_PIN. For any other one, something may intercept the connection: ask the relay's operator, and do not trust the certificate.",
	},
	smtp.ProblemNoIntermediate: {
		"the relay sends an incomplete chain: its own certificate, without that of the intermediate authority which signed it.",
		"The relay's operator must send the whole chain (often a file named fullchain.pem).",
	},
	smtp.ProblemUnknownCA: {
		"the relay's certificate is signed by an authority that this machine does not know.",
		"For a relay of your own, name its authority's certificate in SMTP_TLS_CA_FILE, or the relay's own key in SMTP_TLS_PIN. For any other one, something may intercept the connection: ask the relay's operator, and do not trust the authority.",
	},
	smtp.ProblemNoAuthorities: {
		"no certificate can be verified: this machine has no certificate authorities.",
		"Install them (the package ca-certificates), or name a file with them in SSL_CERT_FILE.",
	},
	smtp.ProblemCertificate: {
		"the relay's certificate is not valid.",
		"The relay's operator must replace it. If it is good elsewhere, something intercepts the connection here.",
	},
	smtp.ProblemPin: {
		"what answers has none of the keys that SMTP_TLS_PIN names.",
		"Ask the relay's operator whether its key was changed; until you know, something may intercept the connection.",
	},
	smtp.ProblemClientCert: {
		"the relay takes only clients with a certificate that it knows, and none is configured.",
		"Set SMTP_TLS_CERT_FILE and SMTP_TLS_KEY_FILE to the certificate that the relay's operator has given you.",
	},
	smtp.ProblemNoMechanism: {
		"the relay offers no AUTH mechanism that can be used with these credentials.",
		"Leave SMTP_AUTH unset or \"auto\". If it is, the account may need OAuth2, which docs/oauth2.md sets up.",
	},
	smtp.ProblemCredentials: {
		"the relay refused the user name or the password.",
		"Check SMTP_USERNAME and SMTP_PASSWORD. Look for blanks or a line end from copying, and for quotes that became part of the value.",
	},
	smtp.ProblemAppPassword: {
		"the relay refused the password: accounts with two-step verification need an app password.",
		"Create an app password in the account's security settings and set it as SMTP_PASSWORD.",
	},
	smtp.ProblemOAuth2: {
		"the relay no longer takes passwords: it needs OAuth2.",
		"Set SMTP_OAUTH2_… as docs/oauth2.md shows, and leave SMTP_AUTH unset. For Microsoft 365 see that SMTP AUTH is enabled for the mailbox.",
	},
	smtp.ProblemSubmissionOff: {
		"SMTP AUTH is switched off for this mailbox, or for the whole organization: no password and no token gets in.",
		"Switch it on in Exchange Online PowerShell: Set-CASMailbox -Identity MAILBOX -SmtpClientAuthenticationDisabled $false," +
			" or for all: Set-TransportConfig -SmtpClientAuthenticationDisabled $false. The mailbox's setting wins. Security defaults switch it off, too.",
	},
	smtp.ProblemForbidden: {
		"a rule of the mailbox's organization forbids this login: security defaults, an authentication policy or Conditional Access.",
		"Ask the organization's administrator: Entra's sign-in logs name the rule. If it forbids passwords, set SMTP_OAUTH2_…; if OAuth2 is set already, a new token does not help.",
	},
	smtp.ProblemLoginNeeded: {
		"the relay says that the session is not logged in.",
		"Set SMTP_USERNAME, with SMTP_PASSWORD or SMTP_OAUTH2_…. If they are set, SMTP_AUTH must not be none.",
	},
	smtp.ProblemBrowser: {
		"the provider wants the account's owner to log in with a browser first.",
		"Log in as SMTP_USERNAME at the provider's web page and confirm what it asks. A new token does not help before that.",
	},
	smtp.ProblemMechanism: {
		"the relay offers this AUTH mechanism, and yet does not know it.",
		"Set SMTP_AUTH to another one that it offers; \"mailsidecar check\" lists them.",
	},
	smtp.ProblemNoLogin: {
		"the relay takes no login on this connection.",
		"Most relays take logins on port 587 with STARTTLS: remove SMTP_PORTS and SMTP_TLS, or set them to what the provider names. If the relay takes mail without a login, set SMTP_AUTH=none.",
	},
	smtp.ProblemTokenDead: {
		"the relay refused the OAuth2 token: it has expired or was revoked, or is of another account than SMTP_USERNAME.",
		"{A new token is fetched by itself, once. If it is refused, too, compare|Compare} SMTP_USERNAME with the account that the token is for.",
	},
	smtp.ProblemTokenEndsSoon: {
		"the relay refused the OAuth2 token because it ends soon: High Volume Email wants 10 minutes at least.",
		"{A new token is fetched by itself, once. |}A program that writes SMTP_OAUTH2_ACCESS_TOKEN_FILE must renew it earlier.",
	},
	smtp.ProblemTokenUnfit: {
		"the relay refused the OAuth2 token: it is for another resource or another mailbox, or a permission is missing.",
		"Check that SMTP_USERNAME is the mailbox, and that the scope is the relay's own: for Microsoft 365 not one of Microsoft Graph." +
			" For client credentials: New-ServicePrincipal must have the object id of Enterprise applications, the mailbox a role or permission for it, and the app an administrator's consent." +
			" Such a change can take hours{; a new token is fetched when the old one ends, or at the next start|}.",
	},
	smtp.ProblemTokenScope: {
		"the relay refused the OAuth2 token: it has no right to send mail.",
		"Compare SMTP_OAUTH2_SCOPES with the scope that the relay names.",
	},
	smtp.ProblemToken: {
		"the OAuth2 access token could not be fetched, so there was nothing to log in with.",
		"Check SMTP_OAUTH2_…: the client may have been removed, or the refresh token may have run out.",
	},
	smtp.ProblemAuthUnavailable: {
		"the relay cannot check logins just now.",
		"Try again in some minutes. Too many failed logins cause this, too.",
	},
	smtp.ProblemSender: {
		"the relay refuses mail from the sender $SENDER.",
		"Set MAILSIDECAR_FROM (for a try: --from) to an address that this account may send from. Most providers want the address or its domain confirmed first.",
	},
	smtp.ProblemCleartext: {
		"SMTP_TLS=none, but the relay's address is a public one: no password and no mail is sent there in the clear.",
		"Remove SMTP_TLS. Only if the path is protected in another way: SMTP_ALLOW_CLEARTEXT=true.",
	},
	smtp.ProblemNotSMTP: {
		"what answers there does not speak SMTP.",
		"Compare SMTP_HOST and SMTP_PORTS with what the provider names.",
	},
	smtp.ProblemOther: {
		"the relay turned us away.",
		"Its own words say why.",
	},
}

// grantRemedies say what to do about a refused token where that depends on how it is
// got.
var grantRemedies = map[Grant]map[smtp.Problem]string{
	GrantGiven: {
		smtp.ProblemTokenDead:     renewGiven,
		smtp.ProblemTokenEndsSoon: renewGiven,
	},
	GrantLogin: {
		smtp.ProblemTokenDead: "{A new token is fetched by itself, once. If it is refused, too, compare|Compare} SMTP_USERNAME with the account that logged in," +
			" and log in again: $LOGIN.",
		smtp.ProblemTokenUnfit: "Check that SMTP_USERNAME is the mailbox that logged in, or one for which it has Send As. Leave SMTP_OAUTH2_SCOPES unset:" +
			" a token for Microsoft Graph is refused. Then log in again: $LOGIN.",
		smtp.ProblemTokenScope: "Leave SMTP_OAUTH2_SCOPES unset, and log in again with every box ticked: $LOGIN.",
	},
	GrantClient: {
		smtp.ProblemTokenDead: "{A new token is fetched by itself, once. If it is refused, too, check|Check} that SMTP_USERNAME is a mailbox that the app may send for.",
		smtp.ProblemTokenUnfit: "Check that SMTP_USERNAME is a mailbox that the app may send for: in Exchange Online PowerShell, New-ServicePrincipal with the object id of" +
			" Enterprise applications (not of App registrations), and a role or mailbox permission for it. Leave SMTP_OAUTH2_SCOPES unset." +
			" A change can take hours{; a new token comes when the old one ends, or at the next start|}.",
		smtp.ProblemTokenScope: "Leave SMTP_OAUTH2_SCOPES unset, and see which permissions the app's registration has.",
	},
	GrantServiceAccount: {
		smtp.ProblemTokenDead:  checkSubject,
		smtp.ProblemTokenUnfit: checkSubject,
		smtp.ProblemTokenScope: "Give the service account's delegation the scope https://mail.google.com/ and no other.",
	},
}

const (
	renewGiven = "The program that provides the token must renew it in time: see SMTP_OAUTH2_ACCESS_TOKEN_FILE. SMTP_OAUTH2_ACCESS_TOKEN is for tests." +
		" Check that SMTP_USERNAME is the token's account."
	checkSubject = "Set SMTP_USERNAME to the primary address of a user who has Gmail.{ A new token is fetched by itself.|}"
)
