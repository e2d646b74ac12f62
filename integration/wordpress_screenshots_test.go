package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"mailsidecar/integration/postfix"
	"mailsidecar/integration/wordpress"
)

// TestWordPressScreenshots takes the pictures of docs/wordpress.md, in the newest
// WordPress at hand, when SCREENSHOTS names the directory to put them in:
//
//	SCREENSHOTS=$PWD/docs/images go test ./integration -run Screenshots
func TestWordPressScreenshots(t *testing.T) {
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		t.Skip("SCREENSHOTS is not set")
	}
	needs(t, "chromium")
	versions := wordpress.Versions(t)
	relay := postfix.Start(t)
	site := wordpress.StartDatabase(t).Site(t, versions[len(versions)-1], wordpressPlugin)
	server := serve(t, withKey(stored(t, relay, relay.Submission)))
	s := &shop{Site: site, relay: relay, server: server}
	constants := func(key string) {
		site.Write(t, "constants.php", `<?php define('MAILSIDECAR_URL', '`+server.url+`'); define('MAILSIDECAR_API_KEY', '`+key+`');
			define('MAILSIDECAR_FROM', 'Shop <shop@example.com>');`)
	}
	constants(testKey)
	// Every visitor is the administrator, and WordPress's own errors about being
	// offline are hidden.
	site.Write(t, "wordpress/wp-content/mu-plugins/admin.php", `<?php ini_set('display_errors', '0'); function auth_redirect() {}
		add_filter('determine_current_user', fn () => 1, 99); add_filter('pre_option_show_avatars', '__return_zero');`)
	s.mail(t, s.env, "", quote("ann@"+postfix.Domain)+`, 'Your order 1042', 'x'`)
	s.Run(t, s.env, wordpress.Load+`set_transient('mailsidecar_test_1', Mailsidecar\send_test(`+quote(relay.Recipient(t))+`, false), 3600);`)
	address := site.Serve(t, s.env)
	screenshot(t, address+"/wp-admin/tools.php?page=mailsidecar&tab=settings", filepath.Join(dir, "wordpress-tools.png"), "1280,1060")
	for n := range 5 {
		s.mail(t, s.env, "", fmt.Sprintf("'%s', 'Your order %d', 'x'", relay.Recipient(t), 1043+n))
	}
	s.mail(t, s.env, "", quote(postfix.Busy)+`, 'Your invoice', 'x'`)
	screenshot(t, address+"/wp-admin/tools.php?page=mailsidecar", filepath.Join(dir, "wordpress-log.png"), "1280,720")
	screenshot(t, address+"/wp-admin/tools.php?page=mailsidecar&mail="+s.messageID(t, "ann@"+postfix.Domain)+"&do=resend", filepath.Join(dir, "wordpress-message.png"), "1280,1060")
	fake := newFakeServer(t, byPath(map[string]string{"/readyz": "ok", "/v1/stats": `{"statuses":{"queued":7,"deferred":30},"hour":{},"relays":[{"name":"smtp.example.com","status":"paused",
		"advice":[{"found":"the relay refused the password: accounts with two-step verification need an app password.","do":"Create an app password in the account's security settings and set it as SMTP_PASSWORD."}]}]}`}))
	site.Write(t, "constants.php", `<?php define('MAILSIDECAR_URL', '`+fake.URL+`');`)
	site.Write(t, "wordpress/wp-content/mu-plugins/two.php", `<?php add_action('wp_dashboard_setup', function () {
		remove_action('welcome_panel', 'wp_welcome_panel');
		foreach ($GLOBALS['wp_meta_boxes']['dashboard'] as $side => $all) foreach ($all as $when => $boxes)
			$GLOBALS['wp_meta_boxes']['dashboard'][$side][$when] = array_intersect_key($boxes, ['mailsidecar' => 1, 'dashboard_quick_press' => 1]); }, 99);`)
	screenshot(t, address+"/wp-admin/index.php", filepath.Join(dir, "wordpress-notice.png"), "1280,480")

	constants("wrong")
	// Only our own test, opened.
	site.Write(t, "wordpress/wp-content/mu-plugins/one.php", `<?php
		add_filter('site_status_tests', fn ($t) => ['direct' => array_intersect_key($t['direct'], ['mailsidecar' => 1]), 'async' => []], 99);
		add_action('admin_print_footer_scripts', fn () => print '<script>addEventListener("load", () => setTimeout(() => document.querySelector(".health-check-accordion-trigger").click(), 500))</script>');`)
	screenshot(t, address+"/wp-admin/site-health.php", filepath.Join(dir, "wordpress-site-health.png"), "1280,640")
}

func screenshot(t *testing.T, url, file, size string) {
	t.Helper()
	cmd := exec.Command("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
		"--user-data-dir="+t.TempDir(), "--virtual-time-budget=8000", "--window-size="+size, "--screenshot="+file, url)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("chromium: %v\n%s", err, out)
	}
}
