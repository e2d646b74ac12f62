package examples

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestWordPress(t *testing.T) {
	type service struct {
		Environment     map[string]string
		Secrets         []string
		Volumes         []string
		StopGracePeriod string `yaml:"stop_grace_period"`
		ReadOnly        bool   `yaml:"read_only"`
	}
	var file struct {
		Services map[string]service
		Secrets  map[string]struct{ File string }
		Volumes  map[string]any
	}
	readYAML(t, "wordpress/compose.yaml", &file)
	instructions := read(t, "wordpress/compose.yaml")
	for name, s := range file.Services {
		for _, secret := range s.Secrets {
			if file.Secrets[secret].File == "" || !strings.Contains(instructions, "> "+file.Secrets[secret].File) {
				t.Errorf("secret %s of %s is not defined, or not made by the instructions", secret, name)
			}
		}
		for variable, value := range s.Environment {
			if strings.HasSuffix(variable, "_FILE") && !slices.Contains(s.Secrets, path.Base(value)) {
				t.Errorf("%s of %s is %s, which is no secret of that service", variable, name, value)
			}
		}
		for _, volume := range s.Volumes {
			source, _, _ := strings.Cut(volume, ":")
			_, named := file.Volumes[source]
			if _, err := os.Stat(filepath.Join("wordpress", source)); !named && err != nil {
				t.Errorf("volume %s of %s is neither defined nor there", source, name)
			}
		}
	}
	sidecar := file.Services["mailsidecar"]
	wantGrace(t, sidecar.StopGracePeriod, load(t, interpolate(t, sidecar.Environment)))
	client(t, interpolate(t, file.Services["wordpress"].Environment))
	if !sidecar.ReadOnly || !slices.Contains(sidecar.Volumes, "queue:/data") {
		t.Errorf("read_only = %t, volumes = %v, want true and the queue's", sidecar.ReadOnly, sidecar.Volumes)
	}
	if !slices.ContainsFunc(file.Services["wordpress"].Volumes, func(v string) bool {
		return strings.HasSuffix(v, "/wordpress/mailsidecar.php:/var/www/html/wp-content/mu-plugins/mailsidecar.php:ro")
	}) {
		t.Error("the plugin is not where WordPress looks for it")
	}
}

// TestSendmailPath checks that every example copies the program from where the
// image has it, and calls it where it was copied to, in a way that it knows.
func TestSendmailPath(t *testing.T) {
	image := read(t, "../Dockerfile")
	for _, name := range []string{"php/Dockerfile", "laravel.md", "symfony.md", "drupal.md"} {
		text := read(t, name)
		copied := regexp.MustCompile(`COPY --from=mailsidecar (\S+) (\S+)`).FindStringSubmatch(text)
		if copied == nil || !strings.Contains(image, `ENTRYPOINT ["`+copied[1]+`"]`) || copied[2] != "/usr/sbin/sendmail" {
			t.Errorf("%s copies %q, want the image's program as /usr/sbin/sendmail", name, copied)
		}
	}
	alone := regexp.MustCompile(`COPY --from=mailsidecar-sendmail (\S+) /usr/sbin/sendmail\n`).FindStringSubmatch(read(t, "php/Dockerfile"))
	if alone == nil || !strings.Contains(image, "FROM scratch AS sendmail\n") || !strings.Contains(image, `ENTRYPOINT ["`+alone[1]+`"]`) {
		t.Errorf("php/Dockerfile copies %q, want the program of the target sendmail", alone)
	}
	options := regexp.MustCompile(`/usr/sbin/sendmail((?: |%20)-[a-z]+)+`)
	for _, name := range []string{"php/mail.ini", "laravel.md", "symfony.md", "drupal.md"} {
		found := options.FindAllString(read(t, name), -1)
		if len(found) == 0 {
			t.Errorf("%s never calls the program", name)
		}
		for _, call := range found {
			call = strings.ReplaceAll(call, "%20", " ")
			if !strings.HasSuffix(call, " -t -i") && !strings.HasSuffix(call, " -bs") && !strings.HasSuffix(call, " -bs -i") {
				t.Errorf("%s calls %q, want -t -i or -bs", name, call)
			}
		}
	}
}

// TestPHPReads has PHP itself read php.ini's line and the PHP of the pages, and
// Symfony its address.
func TestPHPReads(t *testing.T) {
	if _, err := exec.LookPath("php"); err != nil {
		if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci {
			t.Fatal("this machine lacks php: run scripts/install-php-deps")
		}
		t.Skip("this machine lacks php: run scripts/install-php-deps")
	}
	if got := php(t, "-n", "-c", "php/mail.ini", "-r", `echo ini_get("sendmail_path");`); got != "/usr/sbin/sendmail -t -i" {
		t.Errorf("sendmail_path = %q, want /usr/sbin/sendmail -t -i", got)
	}
	for _, block := range regexp.MustCompile("(?s)```php\n(.*?)```").FindAllStringSubmatch(read(t, "drupal.md"), -1) {
		php(t, "-n", "-r", block[1])
	}
	const symfony = "/usr/share/php/Symfony/Component/Mailer/autoload.php"
	if _, err := os.Stat(symfony); err != nil {
		t.Skip("this machine lacks php-symfony-mailer")
	}
	dsn := regexp.MustCompile(`(?m)^MAILER_DSN=(.*)$`).FindStringSubmatch(read(t, "symfony.md"))
	if dsn == nil {
		t.Fatal("symfony.md has no MAILER_DSN")
	}
	got := php(t, "-r", `require $argv[1]; $t = Symfony\Component\Mailer\Transport::fromDsn($argv[2]);
		$c = new ReflectionProperty($t, 'command'); $c->setAccessible(true); echo get_class($t), ' ', $c->getValue($t);`, symfony, dsn[1])
	if want := `Symfony\Component\Mailer\Transport\SendmailTransport /usr/sbin/sendmail -bs`; got != want {
		t.Errorf("MAILER_DSN makes %q, want %q", got, want)
	}
}

func php(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("php", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("php: %v\n%s", err, out)
	}
	return string(out)
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
