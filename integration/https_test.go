package integration

import (
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"mailsidecar/integration/machine"
)

// TestTrust follows the help of "mailsidecar ca": with its output, clients in
// several languages trust the server, and without it they do not.
func TestTrust(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	env := environment{
		"SMTP_HOST": "localhost", "SMTP_PORTS": strconv.Itoa(machine.FreePort(t)), "SMTP_AUTH": "none",
		"MAILSIDECAR_API_KEYS": sdkKeyName + ":" + sdkKey, "MAILSIDECAR_DATA_DIR": t.TempDir(),
		"MAILSIDECAR_TLS": "self-signed", "MAILSIDECAR_TLS_ADDR": addr,
	}
	serve(t, env)
	code, pem := exitCode(t, command(t, env, "ca"))
	if code != 0 {
		t.Fatalf("ca: %s", pem)
	}
	ca := writeFile(t, "ca.pem", pem)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	url := "https://localhost:" + port + "/readyz"
	for _, client := range []struct {
		name    string
		args    []string
		trust   []string // arguments
		environ []string
	}{
		{"curl", []string{"-fsS", url}, []string{"--cacert", ca}, nil},
		{"node", []string{"-e", "fetch(process.argv[1]).then(r => process.exit(r.ok ? 0 : 1))", url}, nil, []string{"NODE_EXTRA_CA_CERTS=" + ca}},
		{"php", []string{"-r", "exit(@file_get_contents($argv[1]) === \"ok\\n\" ? 0 : 1);", url}, []string{"-d", "openssl.cafile=" + ca}, nil},
		{"python3", []string{"-c", "import sys, urllib.request as u; u.urlopen(sys.argv[1])", url}, nil, []string{"SSL_CERT_FILE=" + ca}},
	} {
		t.Run(client.name, func(t *testing.T) {
			if _, err := exec.LookPath(client.name); err != nil {
				t.Skip(err)
			}
			cmd := exec.CommandContext(t.Context(), client.name, append(client.trust, client.args...)...)
			cmd.Env = append(os.Environ(), client.environ...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("with the authority: %v\n%s", err, out)
			}
			if err := exec.CommandContext(t.Context(), client.name, client.args...).Run(); err == nil {
				t.Error("the server is trusted without its authority")
			}
		})
	}
}
