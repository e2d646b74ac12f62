package relays

import "strings"

// interceptors are the makers of software that reads TLS connections on their way:
// antivirus programs, firewalls and debugging proxies. A certificate has the word in
// the name of its issuer, in any case; no public authority has it there.
var interceptors = []struct{ word, name string }{
	{"avast", "Avast"},
	{"avg ", "AVG"},
	{"kaspersky", "Kaspersky"},
	{"eset ", "ESET"},
	{"bitdefender", "Bitdefender"},
	{"norton", "Norton"},
	{"mcafee", "McAfee"},
	{"trellix", "Trellix"},
	{"trend micro", "Trend Micro"},
	{"trendmicro", "Trend Micro"},
	{"sophos", "Sophos"},
	{"g data", "G DATA"},
	{"dr.web", "Dr.Web"},
	{"drweb", "Dr.Web"},
	{"panda security", "Panda Security"},
	{"f-secure", "F-Secure"},
	{"bullguard", "BullGuard"},
	{"adguard", "AdGuard"},
	{"fortinet", "Fortinet"},
	{"fortigate", "FortiGate"},
	{"palo alto", "Palo Alto Networks"},
	{"paloalto", "Palo Alto Networks"},
	{"zscaler", "Zscaler"},
	{"netskope", "Netskope"},
	{"goskope", "Netskope"},
	{"umbrella", "Cisco Umbrella"},
	{"ironport", "Cisco IronPort"},
	{"firepower", "Cisco Firepower"},
	{"blue coat", "Blue Coat"},
	{"bluecoat", "Blue Coat"},
	{"check point", "Check Point"},
	{"checkpoint", "Check Point"},
	{"barracuda", "Barracuda"},
	{"watchguard", "WatchGuard"},
	{"sonicwall", "SonicWall"},
	{"untangle", "Untangle"},
	{"opnsense", "OPNsense"},
	{"pfsense", "pfSense"},
	{"ipfire", "IPFire"},
	{"squid", "Squid"},
	{"mitmproxy", "mitmproxy"},
	{"charles proxy", "Charles Proxy"},
	{"fiddler", "Fiddler"},
	{"portswigger", "Burp Suite"},
	{"forcepoint", "Forcepoint"},
	{"websense", "Forcepoint"},
	{"cloudflare managed", "Cloudflare Gateway"},
	{"cloudflare gateway", "Cloudflare Gateway"},
	{"gateway ca - cloudflare", "Cloudflare Gateway"},
	{"cato networks", "Cato Networks"},
	{"menlo security", "Menlo Security"},
	{"iboss", "iboss"},
	{"smoothwall", "Smoothwall"},
	{"lightspeed systems", "Lightspeed Systems"},
	{"securly", "Securly"},
	{"contentkeeper", "ContentKeeper"},
	{"stormshield", "Stormshield"},
	{"securepoint", "Securepoint"},
	{"lancom", "LANCOM"},
	{"juniper networks", "Juniper"},
	{"huawei", "Huawei"},
	{"sangfor", "Sangfor"},
	{"superfish", "Superfish"},
	{"privdog", "PrivDog"},
	{"web/mail shield", "antivirus software"},
	{"mail shield", "antivirus software"},
	{"ssl filter", "a filter for TLS"},
	{"ssl inspection", "a firewall that inspects TLS"},
	{"tls inspection", "a firewall that inspects TLS"},
	{"deep inspection", "a firewall that inspects TLS"},
	{"ssl decrypt", "a firewall that inspects TLS"},
	{"tls decrypt", "a firewall that inspects TLS"},
	{"ssl proxy", "a proxy that inspects TLS"},
	{"ssl-proxy", "a proxy that inspects TLS"},
	{"untrusted ca", "a firewall that inspects TLS"},
	{"do_not_trust", "a debugging proxy"},
}

// Interceptor returns who intercepts a TLS connection, by the name of the issuer of the
// certificate that it shows, such as "CN=Avast Web/Mail Shield Root"; false where the
// name tells nothing.
func Interceptor(issuer string) (name string, ok bool) {
	issuer = strings.ToLower(issuer) + " "
	for _, i := range interceptors {
		if strings.Contains(issuer, i.word) {
			return i.name, true
		}
	}
	return "", false
}
