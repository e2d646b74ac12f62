// Package wordpress runs real WordPress sites for a test: PHP and MariaDB from
// the machine, WordPress from .tools/wordpress, where scripts/install-php-deps
// puts it.
//
// Everything belongs to the test and is removed with it: the database has its data
// and its socket in a temporary directory, and a site is a copy.
package wordpress

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailsidecar/integration/machine"
)

// scriptTimeout ends a PHP script that hangs.
const scriptTimeout = 2 * time.Minute

// Versions returns the versions of WordPress that are at hand, the oldest first.
// Without any, or without PHP or MariaDB, it skips the test, unless CI=true:
// then it fails.
func Versions(t *testing.T) []string {
	t.Helper()
	machine.Needs(t, script, "php", "mariadbd", "mariadb-install-db")
	trees, err := filepath.Glob(filepath.Join(treeDir, "*", "wp-load.php"))
	if err != nil {
		t.Fatal(err)
	}
	var versions []string
	for _, tree := range trees {
		versions = append(versions, filepath.Base(filepath.Dir(tree)))
	}
	if len(versions) == 0 {
		machine.Lacks(t, "this machine lacks WordPress in .tools/wordpress: run "+script)
	}
	slices.Sort(versions)
	return versions
}

// treeDir is seen from the directory of the tests that use this package.
const treeDir = "../.tools/wordpress"

// FPM returns the path of PHP-FPM. It is unpacked and not installed, for its
// package would start it.
func FPM(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("../.tools/php-fpm/usr/sbin/php-fpm*")
	if err != nil || len(found) == 0 {
		machine.Lacks(t, "this machine lacks PHP-FPM in .tools/php-fpm: run "+script)
	}
	return found[0]
}

// script installs what this package needs.
const script = "scripts/install-php-deps"

// Database is a running MariaDB.
type Database struct {
	socket string
	user   string
}

// StartDatabase starts a MariaDB without a network port, and stops it when the
// test ends.
func StartDatabase(t *testing.T) *Database {
	t.Helper()
	dir := machine.TempDir(t)
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "db.sock")
	account := currentUser(t)
	install := exec.Command("mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal",
		"--skip-test-db", "--skip-name-resolve", "--datadir="+data, "--user="+account)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("mariadb-install-db: %v\n%s", err, out)
	}
	server := exec.Command("mariadbd", "--no-defaults", "--datadir="+data, "--socket="+socket, "--user="+account,
		"--skip-networking", "--skip-log-bin", "--innodb-flush-log-at-trx-commit=0", "--innodb-fast-shutdown=2")
	machine.Serve(t, server, machine.Accepts("unix", socket))
	return &Database{socket: socket, user: "root"}
}

// Site is one installed WordPress.
type Site struct {
	// Dir has wp-config.php and, in wordpress, WordPress itself.
	Dir string
	// Version is WordPress's.
	Version string
	env     map[string]string
}

// Admin is the site's administrator, whose address is the site's too.
const (
	Admin         = "admin"
	AdminPassword = "correct horse"
	AdminEmail    = "admin@example.org"
)

// Site installs a WordPress of that version under the name shop.example.com,
// with plugin as its one mu-plugin.
func (d *Database) Site(t *testing.T, version, plugin string) *Site {
	t.Helper()
	s := &Site{Dir: machine.TempDir(t), Version: version, env: map[string]string{"PATH": os.Getenv("PATH"), "HOME": "/nonexistent"}}
	run(t, "cp", "-r", filepath.Join(treeDir, version), s.core())
	config := fmt.Sprintf(wpConfig, "wp_"+strings.ReplaceAll(version, ".", "_"), d.user, d.socket)
	s.Write(t, "wp-config.php", config)
	s.Write(t, "wordpress/wp-content/mu-plugins/catch.php", catchPlugin)
	s.Write(t, "prepend.php", prepend)
	if err := os.Mkdir(filepath.Join(s.Dir, "opcache"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.createDatabase(t)
	s.Run(t, nil, fmt.Sprintf(`
		define('WP_INSTALLING', true);
		require SITE . '/wordpress/wp-load.php';
		require ABSPATH . 'wp-admin/includes/upgrade.php';
		wp_install('Shop & Co', '%s', '%s', true, '', '%s');
	`, Admin, AdminEmail, AdminPassword))
	data, err := os.ReadFile(plugin)
	if err != nil {
		t.Fatal(err)
	}
	s.Write(t, "wordpress/wp-content/mu-plugins/mailsidecar.php", string(data))
	return s
}

// options are PHP's for every run. The compiled files are kept: WordPress has
// hundreds, and reading them takes longer than any test.
func (s *Site) options() []string {
	var list []string
	for _, setting := range []string{
		"auto_prepend_file=" + filepath.Join(s.Dir, "prepend.php"),
		"opcache.enable=1", "opcache.enable_cli=1", "opcache.file_cache_only=1", "opcache.revalidate_freq=0",
		"opcache.file_cache=" + filepath.Join(s.Dir, "opcache"),
	} {
		list = append(list, "-d", setting)
	}
	return list
}

func (s *Site) core() string { return filepath.Join(s.Dir, "wordpress") }

// wpConfig lies above WordPress's own directory, where wp-load.php finds it.
// Errors are shown, so that a warning of PHP's fails the test that reads the
// output.
const wpConfig = `<?php
define('DB_NAME', '%s');
define('DB_USER', '%s');
define('DB_PASSWORD', '');
define('DB_HOST', 'localhost:%s');
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
define('WP_HOME', 'http://' . ($_SERVER['HTTP_HOST'] ?? 'shop.example.com'));
define('WP_SITEURL', WP_HOME);
foreach (['AUTH_KEY','SECURE_AUTH_KEY','LOGGED_IN_KEY','NONCE_KEY','AUTH_SALT','SECURE_AUTH_SALT','LOGGED_IN_SALT','NONCE_SALT'] as $name) {
	define($name, 'for a test only ' . $name);
}
define('WP_DEBUG', true);
define('WP_DEBUG_DISPLAY', true);
define('WP_DEBUG_LOG', false);
define('DISABLE_WP_CRON', true);
define('AUTOMATIC_UPDATER_DISABLED', true);
define('WP_HTTP_BLOCK_EXTERNAL', !getenv('OPEN'));
if (is_readable(__DIR__ . '/constants.php')) {
	require __DIR__ . '/constants.php';
}
$table_prefix = 'wp_';
defined('ABSPATH') || define('ABSPATH', __DIR__ . '/wordpress/');
require_once ABSPATH . 'wp-settings.php';
`

// prepend runs before any other code. A newer PHP calls much of an older WordPress
// deprecated; only its warnings about the plugin matter.
const prepend = `<?php
set_error_handler(function ($level, $message, $file) {
	return ($level & (E_DEPRECATED | E_USER_DEPRECATED)) && basename($file) !== 'mailsidecar.php';
});
`

// catchPlugin keeps the installation from sending mail of its own.
const catchPlugin = `<?php
if (defined('WP_INSTALLING') && WP_INSTALLING) {
	add_filter('pre_wp_mail', '__return_true', 1);
}
`

func (s *Site) createDatabase(t *testing.T) {
	t.Helper()
	s.Run(t, nil, `
		define('ABSPATH', '/nonexistent/');
		$config = file_get_contents(SITE . '/wp-config.php');
		preg_match("/DB_NAME', '(.*)'/", $config, $name);
		preg_match("/DB_USER', '(.*)'/", $config, $user);
		preg_match("/localhost:(.*)'/", $config, $socket);
		(new mysqli('localhost', $user[1], '', '', 0, $socket[1]))->query("CREATE DATABASE $name[1]");
	`)
}

// Write writes a file of the site.
func (s *Site) Write(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(s.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Load is the start of every script that works inside of WordPress.
const Load = `require SITE . '/wordpress/wp-load.php';`

// Run runs PHP code, in which SITE is the site's directory, with env as the
// environment, and returns what it prints. Options are PHP's own. What PHP
// writes to its error log is in the second value.
func (s *Site) Run(t *testing.T, env map[string]string, code string, options ...string) (stdout, log string) {
	t.Helper()
	file := filepath.Join(machine.TempDir(t), "script.php")
	head := fmt.Sprintf("<?php const SITE = '%s'; ", s.Dir)
	if err := os.WriteFile(file, []byte(head+code), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), scriptTimeout)
	defer cancel()
	args := slices.Concat(s.options(), []string{"-d", "display_errors=stderr", "-d", "log_errors=1", "-d", "error_log="}, options, []string{file})
	cmd := exec.CommandContext(ctx, "php", args...)
	cmd.Env = s.environ(env)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("php: %v\n%s\n%s", err, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// Serve serves the site with PHP's own web server until the test ends, and
// returns its address.
func (s *Site) Serve(t *testing.T, env map[string]string) string {
	t.Helper()
	addr := machine.Address(machine.FreePort(t))
	cmd := exec.Command("php", append(s.options(), "-S", addr, "-t", s.core())...)
	cmd.Env = append(s.environ(env), "PHP_CLI_SERVER_WORKERS=2")
	machine.Serve(t, cmd, machine.Accepts("tcp", addr))
	return "http://" + addr
}

func (s *Site) environ(env map[string]string) []string {
	all := maps.Clone(s.env)
	maps.Copy(all, env)
	var list []string
	for name, value := range all {
		list = append(list, name+"="+value)
	}
	return list
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func currentUser(t *testing.T) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}
