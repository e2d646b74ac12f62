<?php
/**
 * Plugin Name:       mailsidecar
 * Description:       Hands every mail of this site to mailsidecar over HTTP. No mail port, no SMTP settings, and a queue that outlives a restart.
 * Version:           1.0.0
 * Requires at least: 5.9
 * Requires PHP:      7.4
 * Text Domain:       mailsidecar
 *
 * Copy this one file to wp-content/mu-plugins and define MAILSIDECAR_URL and
 * MAILSIDECAR_API_KEY in wp-config.php, or set them in the environment.
 *
 * WordPress keeps building the message: every filter, header, attachment and
 * embedded image is core's own code. Only the last step, handing the finished
 * message over, is replaced, by a PHPMailer whose postSend() makes one HTTP
 * request. So wp_mail() returns true when the message is stored by mailsidecar or
 * was taken by the relay, and false, with the relay's own words in
 * wp_mail_failed, when it was refused.
 *
 * Settings, each as a constant or in the environment:
 *
 *   MAILSIDECAR_URL           Where mailsidecar listens, e.g. http://mailsidecar:8587.
 *                             Without it this file does nothing at all.
 *   MAILSIDECAR_API_KEY       Its key; or MAILSIDECAR_API_KEY_FILE, a file with the key.
 *   MAILSIDECAR_WAIT          How long a page may wait for the relay's verdicts on all
 *                             its mails: seconds, or a duration such as 1m. Default 3,
 *                             at most 60; 0 does not wait.
 *   MAILSIDECAR_FROM          From of every mail: shop@example.com, or with a name,
 *                             Shop <shop@example.com>. A relay refuses the
 *                             wordpress@host that is the default. The author that it
 *                             replaces becomes Reply-To, unless there is one.
 *   MAILSIDECAR_FROM_NAME     Name alone.
 *   MAILSIDECAR_FORCE         Take the mail from another mailer plugin, too.
 *   MAILSIDECAR_USE_PROXY     Go through WP_PROXY_HOST, which is bypassed otherwise.
 *   MAILSIDECAR_TLS_CA_FILE   Certificates to trust for an https URL (PEM).
 *   MAILSIDECAR_LOG           false keeps failures out of PHP's error log.
 *
 * The filter mailsidecar_priority says whose turn it is where messages wait:
 *
 *   add_filter( 'mailsidecar_priority', function ( $priority, $mailer ) {
 *       return in_array( 'List-Unsubscribe', array_column( $mailer->getCustomHeaders(), 0 ), true ) ? 'bulk' : $priority;
 *   }, 10, 2 );
 *
 * @package Mailsidecar
 */

namespace Mailsidecar;

defined( 'ABSPATH' ) || exit;

const VERSION = '1.0.0';

/** Seconds to wait for a connection. mailsidecar is beside the site. */
const CONNECT_TIMEOUT = 3;

/** Seconds that an answer may take past MAILSIDECAR_WAIT. */
const ANSWER_TIMEOUT = 10;

/** Microseconds before the one other try when a connection was not made, or broke. */
const RETRY_PAUSE = 250000;

/** How often a mail is posted again without recipients whose addresses were refused. */
const MAX_ROUNDS = 20;

/** Octets of an answer that are read. */
const MAX_ANSWER = 8388608;

/** Seconds for one request about whether mail flows: a page of wp-admin waits for it. */
const STATE_TIMEOUT = 1;

/** Seconds for which such an answer is used, and seconds until the next request after a failure. */
const STATE_FRESH        = 60;
const STATE_FRESH_FAILED = 300;

/** Seconds for a request that somebody has asked for; a search may take the server four. */
const LOG_TIMEOUT = 6;

/** Messages on a page of the log, and how many recipients and attempts one message shows. */
const LOG_PAGE = 20;
const LOG_ROWS = 50;

/** Seconds that mail may have been due for, as the server's status command has it. */
const MAX_AGE = 900;

add_filter( 'pre_wp_mail', __NAMESPACE__ . '\install_mailer', PHP_INT_MAX );
add_action( 'phpmailer_init', __NAMESPACE__ . '\adopt_mailer', PHP_INT_MAX );
add_filter( 'wp_mail_from', __NAMESPACE__ . '\filter_from', PHP_INT_MAX );
add_filter( 'wp_mail_from_name', __NAMESPACE__ . '\filter_from_name', PHP_INT_MAX );
add_filter( 'site_status_tests', __NAMESPACE__ . '\add_site_health_test' );
add_filter( 'debug_information', __NAMESPACE__ . '\add_debug_information' );
add_action( 'admin_menu', __NAMESPACE__ . '\add_tools_page' );
add_action( 'admin_post_mailsidecar_test', __NAMESPACE__ . '\handle_test_form' );
add_action( 'admin_post_mailsidecar_message', __NAMESPACE__ . '\handle_message_form' );
add_action( 'admin_notices', __NAMESPACE__ . '\render_notice' );
add_action( 'network_admin_notices', __NAMESPACE__ . '\render_notice' );
add_action( 'wp_dashboard_setup', __NAMESPACE__ . '\add_dashboard_widget' );
add_action( 'wp_network_dashboard_setup', __NAMESPACE__ . '\add_dashboard_widget' );

if ( defined( 'WP_CLI' ) && WP_CLI ) {
	\WP_CLI::add_command( 'mailsidecar test', __NAMESPACE__ . '\cli_test' );
	\WP_CLI::add_command( 'mailsidecar status', __NAMESPACE__ . '\cli_status' );
	\WP_CLI::add_command( 'mailsidecar log', __NAMESPACE__ . '\cli_log' );
	\WP_CLI::add_command( 'mailsidecar retry', __NAMESPACE__ . '\cli_retry' );
	\WP_CLI::add_command( 'mailsidecar cancel', __NAMESPACE__ . '\cli_cancel' );
	\WP_CLI::add_command( 'mailsidecar resend', __NAMESPACE__ . '\cli_resend' );
}

/**
 * Loads translations from mu-plugins/mailsidecar-languages, where there are any. Each
 * way into this file that ends in a text does so, and no hook that runs on every page.
 */
function load_translations() {
	static $loaded = '';
	if ( determine_locale() !== $loaded ) {
		$loaded = determine_locale();
		load_muplugin_textdomain( 'mailsidecar', 'mailsidecar-languages' );
	}
}

/*
 * Settings
 */

/**
 * Reads one setting: a constant, else an environment variable. PHP-FPM clears
 * the environment unless told otherwise; the constant works everywhere.
 *
 * @param string $name Name without MAILSIDECAR_.
 * @return array{0: mixed, 1: string} Value, null when it is not set, and source.
 */
function setting( $name ) {
	$name = 'MAILSIDECAR_' . $name;
	if ( defined( $name ) && '' !== constant( $name ) && null !== constant( $name ) ) {
		return array( constant( $name ), 'constant' );
	}
	$value = getenv( $name );
	if ( false !== $value && '' !== $value ) {
		return array( $value, 'environment' );
	}
	return array( null, '' );
}

/**
 * Says whether a setting is switched on.
 *
 * @param string $name     Name without MAILSIDECAR_.
 * @param bool   $fallback What it is when it is not set.
 * @return bool
 */
function is_on( $name, $fallback = false ) {
	list( $value ) = setting( $name );
	return null === $value ? $fallback : filter_var( $value, FILTER_VALIDATE_BOOLEAN );
}

/**
 * Address of mailsidecar without a slash at the end; empty when there is none.
 *
 * @return string
 */
function base_url() {
	list( $url ) = setting( 'URL' );
	return rtrim( trim( (string) $url ), '/' );
}

/**
 * Reads the API key and where it came from: the constant, a file, the environment.
 *
 * @return array{0: string, 1: string} Key, empty when there is none, and source.
 */
function api_key() {
	list( $key, $source ) = setting( 'API_KEY' );
	if ( 'constant' === $source ) {
		return array( trim( (string) $key ), $source );
	}
	list( $file, $file_source ) = setting( 'API_KEY_FILE' );
	if ( null !== $file && is_string( $file ) ) {
		// phpcs:ignore WordPress.WP.AlternativeFunctions.file_get_contents_file_get_contents -- A local file.
		$content = can_read( $file ) ? file_get_contents( $file ) : false;
		return array( trim( (string) $content ), $file_source . ', ' . $file );
	}
	return array( trim( (string) $key ), $source );
}

/**
 * Says whether PHP can read a file. Outside of open_basedir is_readable() warns.
 *
 * @param string $file Path.
 * @return bool
 */
function can_read( $file ) {
	return @is_readable( $file ); // phpcs:ignore WordPress.PHP.NoSilencedErrors.Discouraged -- See above.
}

/**
 * Says why there is no key though MAILSIDECAR_API_KEY_FILE is set.
 *
 * @return string Empty when there is a key, or no such setting.
 */
function key_file_problem() {
	list( $key, $source ) = api_key();
	list( $file )         = setting( 'API_KEY_FILE' );
	if ( '' !== $key || null === $file || 'constant' === $source ) {
		return '';
	}
	if ( is_string( $file ) && can_read( $file ) ) {
		/* translators: %s: name of a file. */
		return sprintf( __( 'MAILSIDECAR_API_KEY_FILE: %s is empty', 'mailsidecar' ), $file );
	}
	return unreadable( 'API_KEY_FILE', $file );
}

/**
 * Says that PHP cannot read the file that a setting names, and why.
 *
 * @param string $name Name without MAILSIDECAR_.
 * @param mixed  $file Path.
 * @return string
 */
function unreadable( $name, $file ) {
	$allowed = (string) ini_get( 'open_basedir' );
	$file    = is_scalar( $file ) ? (string) $file : gettype( $file );
	if ( '' !== $allowed ) {
		/* translators: 1: name of a setting, 2: name of a file, 3: directories. */
		return sprintf( __( '%1$s: PHP cannot read %2$s; its open_basedir allows only %3$s', 'mailsidecar' ), "MAILSIDECAR_$name", $file, $allowed );
	}
	/* translators: 1: name of a setting, 2: name of a file. */
	return sprintf( __( '%1$s: PHP cannot read %2$s: it is not there, or not readable for the user that PHP runs as', 'mailsidecar' ), "MAILSIDECAR_$name", $file );
}

/**
 * Seconds that the mails of a page may wait for the relay's verdict.
 *
 * @return int
 */
function wait_seconds() {
	list( $wait ) = setting( 'WAIT' );
	$seconds      = null === $wait ? null : duration_seconds( $wait );
	return null === $seconds ? 3 : (int) ceil( min( 60, $seconds ) );
}

/**
 * Reads a duration as mailsidecar's own settings are written: seconds, or 90s, 1m30s,
 * 500ms, 1d12h.
 *
 * @param mixed $text Setting.
 * @return float|null Seconds, null when it is none.
 */
function duration_seconds( $text ) {
	$text = is_scalar( $text ) && ! is_bool( $text ) ? trim( (string) $text ) : '';
	if ( is_numeric( $text ) ) {
		return $text >= 0 ? (float) $text : null;
	}
	$number = '(?:\d+(?:\.\d*)?|\.\d+)';
	if ( ! preg_match( "/^(?:\d+d)?(?:$number(?:h|m|s|ms|us|µs|μs|ns))*$/", $text ) || '' === $text ) {
		return null;
	}
	$units   = array(
		'd'  => 86400,
		'h'  => 3600,
		'm'  => 60,
		's'  => 1,
		'ms' => 1e-3,
		'us' => 1e-6,
		'µs' => 1e-6,
		'μs' => 1e-6,
		'ns' => 1e-9,
	);
	$seconds = 0.0;
	preg_match_all( "/($number)(ms|us|µs|μs|ns|d|h|m|s)/", $text, $parts, PREG_SET_ORDER );
	foreach ( $parts as $part ) {
		$seconds += (float) $part[1] * $units[ $part[2] ];
	}
	return $seconds;
}

/**
 * Seconds that the next mail may wait. All mails of a page share MAILSIDECAR_WAIT: a
 * visitor waits for the page, not for one of them. No visitor waits for WP-CLI.
 *
 * @return int
 */
function wait_left() {
	$shared = ! ( defined( 'WP_CLI' ) && WP_CLI );
	return max( 0, (int) ceil( wait_seconds() - ( $shared ? waited() : 0 ) ) );
}

/**
 * Adds to the time that this page's mails have taken.
 *
 * @param float $seconds Seconds to add.
 * @return float All of them.
 */
function waited( $seconds = 0.0 ) {
	static $total = 0.0;
	$total       += $seconds;
	return $total;
}

/**
 * Reads MAILSIDECAR_FROM, which may have a name as the server's setting has:
 * Shop <shop@example.com>. MAILSIDECAR_FROM_NAME comes before that name.
 *
 * @return array{0: string, 1: string|null} Address, empty when it is not set or
 *         none, and name, null when it is not set.
 */
function configured_from() {
	list( $from ) = setting( 'FROM' );
	list( $name ) = setting( 'FROM_NAME' );
	$address      = trim( (string) $from );
	if ( preg_match( '/^(.*)<([^<>]+)>$/', $address, $parts ) ) {
		$address = trim( $parts[2] );
		$name    = null === $name && '' !== trim( $parts[1], ' "' ) ? trim( $parts[1], ' "' ) : $name;
	}
	return array( is_email( $address ) ? $address : '', null === $name ? null : (string) $name );
}

/**
 * Replaces the From address by MAILSIDECAR_FROM, after every plugin.
 *
 * @param string $from Address so far.
 * @return string
 */
function filter_from( $from ) {
	list( $own ) = configured_from();
	if ( '' === $own ) {
		return $from;
	}
	replaced_author( array( (string) $from, '' ) );
	return $own;
}

/**
 * Replaces the From name by MAILSIDECAR_FROM_NAME, after every plugin.
 *
 * @param string $name Name so far.
 * @return string
 */
function filter_from_name( $name ) {
	list( , $own )   = configured_from();
	list( $address ) = replaced_author();
	if ( '' !== $address ) {
		replaced_author( array( $address, (string) $name ) );
	}
	return null === $own ? $name : $own;
}

/**
 * Keeps the author that MAILSIDECAR_FROM has replaced in this mail, for Reply-To.
 *
 * @param string[]|null $author Address and name to keep; null only reads.
 * @return string[] Address, empty when there is none, and name.
 */
function replaced_author( $author = null ) {
	static $kept = array( '', '' );
	if ( null !== $author ) {
		$kept = $author;
	}
	return $kept;
}

/*
 * The mailer
 */

/**
 * Puts the mailer in place, at the last moment before wp_mail() looks at the
 * global. Here rather than at start-up, because plugins and tests unset that
 * global or put a plain PHPMailer back; and not in phpmailer_init, which is too
 * late, for by then the message is in the old object.
 *
 * @param mixed $answer What other plugins made of the mail; not touched.
 * @return mixed
 */
function install_mailer( $answer ) {
	global $phpmailer;

	replaced_author( array( '', '' ) );
	if ( null !== $answer || '' === base_url() ) {
		return $answer;
	}
	load_translations();
	if ( is_own( $phpmailer ) ) {
		// Newer versions of WordPress do the same. In older ones the Encoding of one
		// mail stays for the next, where it spoils a multipart of the caller's own.
		$phpmailer->Encoding = '8bit'; // phpcs:ignore WordPress.NamingConventions.ValidVariableName -- PHPMailer's name.
		return $answer;
	}
	if ( is_foreign( $phpmailer ) && ! is_on( 'FORCE' ) ) {
		log_foreign( get_class( $phpmailer ) );
		return $answer;
	}
	// phpcs:ignore WordPress.WP.GlobalVariablesOverride.Prohibited -- This is how WordPress's own mailer is replaced.
	$phpmailer = new_mailer();
	return $answer;
}

/**
 * Takes the place of a PHPMailer that a plugin has made for itself, as BuddyPress does:
 * it would send with PHP's mail(). Like core, such a plugin lets phpmailer_init
 * replace the object.
 *
 * @param mixed $mailer Mailer with the message.
 */
function adopt_mailer( &$mailer ) {
	if ( '' === base_url() || is_own( $mailer ) || ! $mailer instanceof \PHPMailer\PHPMailer\PHPMailer ) {
		return;
	}
	if ( is_foreign( $mailer ) && ! is_on( 'FORCE' ) ) {
		log_foreign( get_class( $mailer ) );
		return;
	}
	load_translations();
	declare_mailer();
	$own  = new Mailer( true );
	$copy = \Closure::bind(
		static function ( $from, $to ) {
			foreach ( array_intersect_key( get_object_vars( $from ), get_object_vars( $to ) ) as $name => $value ) {
				$to->$name = $value;
			}
		},
		null,
		'PHPMailer\PHPMailer\PHPMailer'
	);
	$copy( $mailer, $own );
	$mailer = $own;
	replaced_author( array( '', '' ) );
}

/**
 * Logs, once in a request, which other mailer has the mail.
 *
 * @param string $mailer Name of a class.
 */
function log_foreign( $mailer ) {
	static $logged = array();
	if ( ! isset( $logged[ $mailer ] ) ) {
		log_line( "mail left to another mailer: $mailer (MAILSIDECAR_FORCE takes it)" );
		$logged[ $mailer ] = true;
	}
}

/**
 * Says whether an object is the mailer of this file.
 *
 * @param mixed $mailer Object to look at.
 * @return bool
 */
function is_own( $mailer ) {
	return class_exists( __NAMESPACE__ . '\Mailer', false ) && $mailer instanceof Mailer;
}

/**
 * Says whether an object is a mailer that another plugin has put there: any
 * subclass but WordPress's own. A mail logger and the mock of a test are such.
 *
 * @param mixed $mailer Object to look at.
 * @return bool
 */
function is_foreign( $mailer ) {
	return $mailer instanceof \PHPMailer\PHPMailer\PHPMailer
		&& ! is_own( $mailer )
		&& ! in_array( get_class( $mailer ), array( 'PHPMailer\PHPMailer\PHPMailer', 'WP_PHPMailer' ), true );
}

/**
 * Makes a mailer the way wp_mail() makes its own: with exceptions, without which
 * a failure counts as success, and with is_email() to judge addresses.
 *
 * @return Mailer
 */
function new_mailer() {
	declare_mailer();
	$mailer             = new Mailer( true );
	$mailer::$validator = static function ( $email ) {
		return (bool) is_email( $email );
	};
	return $mailer;
}

/**
 * Declares the mailer's class. It extends WP_PHPMailer where WordPress has that
 * (6.8), which has the translated error texts.
 */
function declare_mailer() {
	if ( class_exists( __NAMESPACE__ . '\Mailer', false ) ) {
		return;
	}
	require_once ABSPATH . WPINC . '/PHPMailer/PHPMailer.php';
	require_once ABSPATH . WPINC . '/PHPMailer/SMTP.php';
	require_once ABSPATH . WPINC . '/PHPMailer/Exception.php';
	if ( is_readable( ABSPATH . WPINC . '/class-wp-phpmailer.php' ) ) {
		require_once ABSPATH . WPINC . '/class-wp-phpmailer.php';
	}
	class_alias( class_exists( 'WP_PHPMailer', false ) ? 'WP_PHPMailer' : 'PHPMailer\PHPMailer\PHPMailer', __NAMESPACE__ . '\Core_Mailer' );

	/**
	 * PHPMailer whose last step is one HTTP request.
	 */
	class Mailer extends Core_Mailer {

		/**
		 * Builds the message as for SMTP: with To and Subject in it, without Bcc,
		 * with CRLF, and with long header values left alone, which as for mail()
		 * would be encoded, List-Unsubscribe among them.
		 *
		 * @return bool
		 */
		public function preSend() { // phpcs:ignore WordPress.NamingConventions.ValidFunctionName -- PHPMailer's name.
			// phpcs:disable WordPress.NamingConventions.ValidVariableName -- PHPMailer's names.
			$this->set_own_author();
			// PHPMailer would make two line ends of CR CR LF.
			foreach ( array( 'Body', 'AltBody' ) as $part ) {
				$this->$part = one_line_end( (string) $this->$part );
			}
			$mailer       = $this->Mailer;
			$this->Mailer = 'smtp';
			try {
				return parent::preSend();
			} finally {
				$this->Mailer = $mailer;
			}
			// phpcs:enable
		}

		/**
		 * Makes MAILSIDECAR_FROM the author, also where a snippet in phpmailer_init has set
		 * another one. Who was the author before gets the replies, unless others do.
		 */
		private function set_own_author() {
			// phpcs:disable WordPress.NamingConventions.ValidVariableName -- PHPMailer's names.
			list( $own, $own_name )   = configured_from();
			list( $address, $author ) = replaced_author();
			replaced_author( array( '', '' ) );
			if ( '' !== $own && 0 !== strcasecmp( $own, $this->From ) ) {
				list( $address, $author ) = array( $this->From, $this->FromName );
				if ( $this->Sender === $this->From ) {
					$this->Sender = ''; // As setFrom() sets it, too.
				}
				$this->From = $own;
			}
			if ( null !== $own_name ) {
				$this->FromName = $own_name;
			}
			if ( is_author( $address ) && 0 !== strcasecmp( $own, $address ) && ! $this->ReplyTo ) {
				$this->addReplyTo( $address, 'WordPress' === $author ? '' : $author );
			}
			// phpcs:enable
		}

		/**
		 * Hands the message over. PHPMailer handles the exception like any other:
		 * wp_mail() returns false and calls wp_mail_failed.
		 *
		 * @return bool
		 * @throws \PHPMailer\PHPMailer\Exception When the message was not accepted.
		 */
		public function postSend() { // phpcs:ignore WordPress.NamingConventions.ValidFunctionName -- PHPMailer's name.
			// phpcs:disable WordPress.NamingConventions.ValidVariableName -- PHPMailer's names.
			// getAllRecipientAddresses() would give them in lower case.
			$recipients = array_column( array_merge( $this->to, $this->cc, $this->bcc ), 0 );
			$sender     = '' === (string) $this->Sender ? $this->From : $this->Sender;
			$failure    = submit( clean_header( $this->getSentMIMEMessage() ), $sender, $recipients, priority( $this ) );
			$this->doCallback( null === $failure, $this->to, $this->cc, $this->bcc, $this->Subject, $this->Body, $this->From, array() );
			// phpcs:enable
			if ( null !== $failure ) {
				// phpcs:ignore WordPress.Security.EscapeOutput.ExceptionNotEscaped -- The code that shows it escapes it.
				throw new \PHPMailer\PHPMailer\Exception( $failure->get_error_message(), (int) $failure->get_error_data() );
			}
			return true;
		}
	}
}

/**
 * Says whether an address is a person's or a plugin's choice, and not the one that
 * WordPress makes up.
 *
 * @param string $address Address.
 * @return bool
 */
function is_author( $address ) {
	return is_email( $address ) && 0 !== stripos( $address, 'wordpress@' );
}

/**
 * Makes one line end of CR CR LF.
 *
 * @param string $text Text.
 * @return string
 */
function one_line_end( $text ) {
	return false === strpos( $text, "\r\r\n" ) ? $text : (string) preg_replace( '/\r+\n/', "\r\n", $text );
}

/**
 * Makes the header section one that every server takes. A CR that ends no line becomes
 * a blank, so that it begins no field: PHPMailer takes Content-Type as it is. Fields that
 * may stand once do: wp_mail() adds a "To:" or "Date:" among its headers to PHPMailer's.
 *
 * @param string $message Message with CRLF.
 * @return string
 */
function clean_header( $message ) {
	$end    = strpos( $message, "\r\n\r\n" );
	$end    = false === $end ? strlen( $message ) : $end;
	$header = preg_replace( '/\r(?!\n)/', ' ', one_line_end( substr( $message, 0, $end ) ) );
	return merge_repeated( $header ) . substr( $message, $end );
}

/**
 * Joins repeated fields with recipients, and keeps the first of others that may stand
 * once (RFC 5322 §3.6). What is signed stays.
 *
 * @param string $header Header section without the empty line.
 * @return string
 */
function merge_repeated( $header ) {
	$joined = array( 'to', 'cc' );
	$single = array( 'from', 'sender', 'reply-to', 'date', 'message-id', 'in-reply-to', 'references', 'subject', 'mime-version', 'content-type', 'content-transfer-encoding' );
	$kept   = array();
	foreach ( preg_split( '/\r\n(?![ \t])/', $header ) as $field ) {
		$parts = explode( ':', $field, 2 ) + array( '', '' );
		$name  = strtolower( trim( $parts[0] ) );
		if ( 'dkim-signature' === $name ) {
			return $header;
		}
		$key = "$name:"; // A name of digits would be an index.
		if ( ! isset( $kept[ $key ] ) ) {
			$kept[ $key ] = $field;
		} elseif ( in_array( $name, $joined, true ) ) {
			$kept[ $key ] .= ",\r\n " . trim( $parts[1] );
		} elseif ( ! in_array( $name, $single, true ) ) {
			$kept[] = $field;
		}
	}
	return implode( "\r\n", $kept );
}

/**
 * Asks the site for the message's priority. An answer that is no priority is left
 * out, because the server would refuse the message.
 *
 * @param Mailer $mailer Mailer with the finished message.
 * @return string Empty without an answer: the server then goes by Precedence.
 */
function priority( $mailer ) {
	/**
	 * Filters the priority of a message.
	 *
	 * @param string                        $priority high, normal or bulk; empty leaves it to the server.
	 * @param \PHPMailer\PHPMailer\PHPMailer $mailer   Mailer with the message.
	 */
	$priority = apply_filters( 'mailsidecar_priority', '', $mailer );
	if ( in_array( $priority, array( '', 'high', 'normal', 'bulk' ), true ) ) {
		return $priority;
	}
	log_line( 'the filter mailsidecar_priority returned something else than high, normal or bulk: not used' );
	return '';
}

/**
 * Submits one finished message. Recipients whose addresses cannot be right are left out
 * and logged, as wp_mail() leaves out those that it does not take: the others get the
 * message.
 *
 * @param string   $message    Header section and body, with CRLF.
 * @param string   $sender     Envelope sender.
 * @param string[] $recipients Envelope recipients.
 * @param string   $priority   high, normal or bulk; empty leaves it to the server.
 * @return \WP_Error|null Null when it was accepted. The error's data is the SMTP
 *                        reply code where there is one, else the HTTP status.
 */
function submit( $message, $sender, $recipients, $priority ) {
	if ( ! is_plain_address( $sender ) ) {
		return failure( 0, __( 'the sender\'s address has a character that no address can have', 'mailsidecar' ) );
	}
	$recipients = array_values( $recipients );
	$wrong      = array();
	foreach ( $recipients as $i => $address ) {
		if ( ! is_plain_address( $address ) ) {
			$wrong[ $i ] = __( 'the address has a character that no address can have', 'mailsidecar' );
		}
	}
	for ( $round = 0; $round < MAX_ROUNDS; $round++ ) {
		if ( count( $wrong ) === count( $recipients ) ) {
			return failure( 422, wrong_addresses( $recipients, $wrong ) );
		}
		if ( $wrong ) {
			log_line( 'left out, though others were not: ' . wrong_addresses( $recipients, $wrong ) );
		}
		$recipients = array_values( array_diff_key( $recipients, $wrong ) );
		$answer     = post_message( $message, submission_headers( $sender, $recipients, $priority ) );
		$wrong      = refused_addresses( $answer, count( $recipients ) );
		if ( ! $wrong ) {
			break;
		}
	}
	last_answer( $answer );
	return judge( $answer );
}

/**
 * Says whether an address can stand in a list of addresses without changing it.
 *
 * @param string $address Address; empty for the null sender.
 * @return bool
 */
function is_plain_address( $address ) {
	return ! preg_match( '/[\x00-\x20\x7f<>,;()"\\\\]/', $address ) && ( '' === $address || preg_match( '/^./u', $address ) );
}

/**
 * Names recipients, and what is wrong with each.
 *
 * @param string[] $recipients Envelope recipients.
 * @param string[] $wrong      What is wrong, by the index of the recipient.
 * @return string
 */
function wrong_addresses( $recipients, $wrong ) {
	$texts = array();
	foreach ( $wrong as $i => $reason ) {
		$texts[] = '<' . $recipients[ $i ] . '>: ' . $reason;
	}
	return implode( '; ', $texts );
}

/**
 * Header fields of a submission. The idempotency key is of this submission alone: two
 * mails with one Message-ID are two mails.
 *
 * @param string   $sender     Envelope sender.
 * @param string[] $recipients Envelope recipients.
 * @param string   $priority   high, normal or bulk; empty leaves it to the server.
 * @return string[]
 */
function submission_headers( $sender, $recipients, $priority ) {
	$headers = array(
		'Content-Type'  => 'message/rfc822',
		'Envelope-From' => '' === $sender ? '<>' : $sender,
		'Envelope-To'   => implode( ', ', $recipients ),
	);
	if ( '' !== $priority ) {
		$headers['Envelope-Priority'] = $priority;
	}
	if ( wait_left() > 0 ) {
		$headers['Prefer'] = 'wait=' . wait_left();
	}
	if ( base_url() !== get_site_transient( 'mailsidecar_no_queue' ) ) {
		$headers['Idempotency-Key'] = bin2hex( random_bytes( 16 ) );
	}
	return $headers;
}

/**
 * What is wrong with single recipients, as the server names them: Envelope-To[2], or
 * Envelope-To where there is one.
 *
 * @param array $answer Answer to a submission.
 * @param int   $count  Number of its recipients.
 * @return string[] By the index of the recipient; empty where something else is wrong, too.
 */
function refused_addresses( $answer, $count ) {
	$errors = isset( $answer['body']['errors'] ) && is_array( $answer['body']['errors'] ) ? $answer['body']['errors'] : array();
	$wrong  = array();
	foreach ( in_array( $answer['status'], array( 400, 422 ), true ) ? $errors : array() as $error ) {
		$error = (array) $error + array(
			'field'   => '',
			'message' => '',
		);
		if ( '' === $error['field'] && $wrong ) {
			continue; // The server's word that there are more.
		}
		if ( ! preg_match( '/^Envelope-To(?:\[(\d+)\])?$/', (string) $error['field'], $match ) || ( ! isset( $match[1] ) && $count > 1 ) ) {
			return array();
		}
		$i = isset( $match[1] ) ? (int) $match[1] : 0;
		if ( $i >= $count ) {
			return array();
		}
		$wrong[ $i ] = (string) $error['message'];
	}
	return $wrong;
}

/**
 * Posts one message. Where a connection was not made or broke, or the server asks for
 * it, the request is repeated once, with the same key, so that the message is taken once
 * at most. All other trying again is mailsidecar's.
 *
 * @param string   $message Header section and body.
 * @param string[] $headers Header fields of the request.
 * @return array Answer, see request().
 */
function post_message( $message, $headers ) {
	$timeout  = wait_left() + ANSWER_TIMEOUT;
	$broken   = null;
	$repeated = false;
	while ( true ) {
		$start  = microtime( true );
		$answer = request( 'POST', '/v1/messages', $timeout, $headers, $message );
		waited( microtime( true ) - $start );
		$no_queue = isset( $answer['body']['code'] ) && 'queue_required' === $answer['body']['code'];
		if ( null !== $broken && ( $no_queue || 409 === $answer['status'] ) ) {
			return $broken; // The server cannot tell what became of the first request.
		}
		if ( $no_queue && isset( $headers['Idempotency-Key'] ) ) {
			// Without a queue there is nowhere to keep a key. The next mails need not ask.
			set_site_transient( 'mailsidecar_no_queue', base_url(), HOUR_IN_SECONDS );
			unset( $headers['Idempotency-Key'] );
			continue;
		}
		if ( $repeated || ! is_worth_repeating( $answer, isset( $headers['Idempotency-Key'] ) ) ) {
			return $answer;
		}
		$broken   = 0 === $answer['status'] ? $answer : null;
		$repeated = true;
		usleep( RETRY_PAUSE );
	}
}

/**
 * Says whether a request is worth another try: the server asks for it, was not reached,
 * or the connection broke and a key keeps the message from being taken twice. A time-out
 * is not, because another try would take as long.
 *
 * @param array $answer  Answer to the request.
 * @param bool  $has_key The request had an idempotency key.
 * @return bool
 */
function is_worth_repeating( $answer, $has_key ) {
	if ( 0 !== $answer['status'] ) {
		return 503 === $answer['status'] && '0' === $answer['retry_after'] && is_ours( $answer );
	}
	if ( preg_match( '/cURL error [67]\b|onnection refused|getaddrinfo/', $answer['error'] ) ) {
		return true;
	}
	return $has_key && ! preg_match( '/cURL error 28\b|timed out/i', $answer['error'] );
}

/**
 * Returns the failure that an answer means, null for none.
 *
 * @param array $answer Answer to a submission.
 * @return \WP_Error|null
 */
function judge( $answer ) {
	$status = $answer['status'];
	$body   = $answer['body'];
	if ( ( 200 === $status || 202 === $status ) && ! empty( $body['id'] ) && recipients_of( $body ) ) {
		foreach ( recipients_of( $body ) as $recipient ) {
			if ( 'bounced' === $recipient['state'] ) {
				log_line( 'refused, though others were not: ' . reply_text( $recipient ) );
			}
		}
		return null;
	}
	if ( 0 === $status ) {
		/* translators: 1: URL, 2: reason. */
		return failure( 0, sprintf( __( 'cannot reach %1$s: %2$s', 'mailsidecar' ), base_url(), $answer['error'] ) );
	}
	if ( ! is_ours( $answer ) || 300 > $status ) {
		return failure( $status, foreign_answer( $status ) );
	}
	if ( 401 === $status ) {
		$reason = '' === key_file_problem() ? '' : '; ' . key_file_problem();
		return failure( 401, __( 'the API key is missing or wrong', 'mailsidecar' ) . " (HTTP 401)$reason" );
	}
	if ( empty( $body['reply_code'] ) ) {
		$detail = isset( $body['detail'] ) && is_string( $body['detail'] ) ? $body['detail'] : $body['code'];
		return failure( $status, $detail . " (HTTP $status)" );
	}
	$refused = recipients_of( $body );
	$text    = $refused ? implode( '; ', array_map( __NAMESPACE__ . '\reply_text', array_slice( $refused, 0, 3 ) ) ) : $body['detail'];
	return failure( (int) $body['reply_code'], $text . " (HTTP $status)" );
}

/**
 * Says whether an answer is mailsidecar's, by its header field Mailsidecar. Servers
 * from before that field are known by the form of their JSON.
 *
 * @param array $answer See request().
 * @return bool
 */
function is_ours( $answer ) {
	$body = $answer['body'];
	return $answer['own'] || isset( $body['code'], $body['title'] ) || isset( $body['relays'] ) || isset( $body['messages'] )
		|| ( ! empty( $body['id'] ) && isset( $body['recipients'] ) );
}

/**
 * Says that something else than mailsidecar answered.
 *
 * @param int $status HTTP status.
 * @return string
 */
function foreign_answer( $status ) {
	/* translators: 1: URL, 2: HTTP status. */
	return sprintf( __( 'the answer of %1$s is not mailsidecar\'s (HTTP %2$d): MAILSIDECAR_URL must be the address of mailsidecar', 'mailsidecar' ), base_url(), $status );
}

/**
 * Recipients of an answer, each with every key that is read of it.
 *
 * @param array|null $body Decoded body.
 * @return array[]
 */
function recipients_of( $body ) {
	$list = isset( $body['recipients'] ) && is_array( $body['recipients'] ) ? $body['recipients'] : array();
	return array_map(
		static function ( $recipient ) {
			return array_merge(
				array(
					'email'         => '',
					'state'         => '',
					'reply_code'    => 0,
					'enhanced_code' => '',
					'text'          => '',
				),
				array_filter( (array) $recipient, 'is_scalar' )
			);
		},
		$list
	);
}

/**
 * A relay's reply in one line: 550 5.1.1 <x@y>: No such user here.
 *
 * @param array $recipient One of recipients_of().
 * @return string
 */
function reply_text( $recipient ) {
	$parts = array();
	if ( $recipient['reply_code'] ) {
		$parts[] = $recipient['reply_code'];
		$parts[] = $recipient['enhanced_code'];
	}
	if ( '' !== $recipient['email'] && false === strpos( $recipient['text'], $recipient['email'] ) ) {
		$parts[] = '<' . $recipient['email'] . '>:';
	}
	$parts[] = $recipient['text'];
	return implode( ' ', array_filter( $parts ) );
}

/**
 * Makes a failure, and logs it: with WP-Cron no person sees wp_mail() return false.
 *
 * @param int    $code SMTP reply code or HTTP status.
 * @param string $text One line.
 * @return \WP_Error
 */
function failure( $code, $text ) {
	$text = one_line( 'mailsidecar: ' . $text );
	log_line( substr( $text, strlen( 'mailsidecar: ' ) ) );
	return new \WP_Error( 'mailsidecar', $text, $code );
}

/**
 * Puts text on one line, without controls, which a terminal obeys.
 *
 * @param string $text Text that may come from elsewhere.
 * @return string
 */
function one_line( $text ) {
	return trim( preg_replace( '/(?:[\x00-\x1f\x7f]|\xc2[\x80-\x9f])+/', ' ', (string) $text ) );
}

/**
 * Writes one line to PHP's error log, unless MAILSIDECAR_LOG is false.
 *
 * @param string $text One line.
 */
function log_line( $text ) {
	if ( is_on( 'LOG', true ) ) {
		error_log( one_line( 'mailsidecar: ' . $text ) ); // phpcs:ignore WordPress.PHP.DevelopmentFunctions.error_log_error_log -- The only place that is always read.
	}
}

/**
 * Keeps the answer to the last submission, for the test mail.
 *
 * @param array|null $answer Answer to keep; null only reads.
 * @return array Empty when there is none.
 */
function last_answer( $answer = null ) {
	static $last = array();
	if ( null !== $answer ) {
		$last = $answer;
	}
	return $last;
}

/*
 * HTTP
 */

/**
 * Makes one request with WordPress's HTTP API, which works without ext-curl and
 * shows in Query Monitor. WordPress's guards against foreign addresses would
 * also block the address that the site's owner has configured: private networks
 * and uncommon ports are refused by wp_safe_remote_post(), WP_HTTP_BLOCK_EXTERNAL
 * knows only the site itself, and a proxy cannot reach a container's name.
 *
 * @param string      $method  Method.
 * @param string      $path    Path with query.
 * @param int         $timeout Seconds for the whole.
 * @param array       $headers Further header fields.
 * @param string|null $body    Body.
 * @return array{status: int, body: array|null, text: string, retry_after: string, own: bool, error: string}
 *         Status 0 with an error when there was no answer; body null when it is
 *         no JSON object; text is how it begins.
 */
function request( $method, $path, $timeout, $headers = array(), $body = null ) {
	$url         = base_url() . $path;
	list( $key ) = api_key();
	$args        = array(
		'method'              => $method,
		'timeout'             => $timeout,
		'redirection'         => 0, // It would drop the message.
		'blocking'            => true,
		'reject_unsafe_urls'  => false,
		'sslverify'           => true,
		'stream'              => false,
		'filename'            => null,
		'limit_response_size' => MAX_ANSWER,
		'user-agent'          => 'mailsidecar-wordpress/' . VERSION,
		'headers'             => $headers + array( 'Accept' => 'application/json' ),
		'cookies'             => array(),
		'body'                => $body,
	);
	if ( '' !== $key ) {
		$args['headers']['Authorization'] = 'Bearer ' . $key;
	}
	list( $ca_file ) = setting( 'TLS_CA_FILE' );
	if ( null !== $ca_file ) {
		$args['sslcertificates'] = $ca_file;
	}
	return read_answer( request_unchanged( $url, $args ) );
}

/**
 * WordPress's HTTP client without WP_HTTP_BLOCK_EXTERNAL.
 *
 * @return \WP_Http
 */
function unblocked_http() {
	return new class() extends \WP_Http {
		/**
		 * Blocks nothing.
		 *
		 * @param string $uri URL.
		 * @return bool
		 */
		public function block_request( $uri ) { // phpcs:ignore Generic.CodeAnalysis.UnusedFunctionParameter -- The parent's signature.
			return false;
		}
	};
}

/**
 * Makes one request as it is, whatever other plugins change in requests: their filters
 * shorten time-outs, or do not wait for the answer. It connects within CONNECT_TIMEOUT
 * and uses no proxy, neither WordPress's nor the one that libcurl takes from the
 * environment.
 *
 * @param string $url  URL; requests to others are left alone.
 * @param array  $args Arguments of the request.
 * @return array|\WP_Error
 */
function request_unchanged( $url, $args ) {
	$direct = ! is_on( 'USE_PROXY' );
	$own    = static function ( $changed, $uri ) use ( $url, $args ) {
		return $uri === $url ? array_merge( (array) $changed, $args ) : $changed;
	};
	$proxy  = static function ( $through, $uri ) use ( $url, $direct ) {
		return $direct && $uri === $url ? false : $through;
	};
	$curl   = static function ( $handle, $request, $uri ) use ( $url, $args, $direct ) {
		if ( $uri !== $url ) {
			return;
		}
		// phpcs:disable WordPress.WP.AlternativeFunctions.curl_curl_setopt -- WordPress's own handle.
		curl_setopt( $handle, CURLOPT_CONNECTTIMEOUT_MS, 1000 * CONNECT_TIMEOUT );
		curl_setopt( $handle, CURLOPT_TIMEOUT_MS, 1000 * $args['timeout'] );
		if ( $direct ) {
			curl_setopt( $handle, CURLOPT_PROXY, '' );
			curl_setopt( $handle, CURLOPT_NOPROXY, '*' );
		}
		// phpcs:enable
	};
	add_filter( 'http_request_args', $own, PHP_INT_MAX, 2 );
	add_filter( 'pre_http_send_through_proxy', $proxy, PHP_INT_MAX, 2 );
	add_action( 'http_api_curl', $curl, PHP_INT_MAX, 3 );
	try {
		return unblocked_http()->request( $url, $args );
	} finally {
		remove_filter( 'http_request_args', $own, PHP_INT_MAX );
		remove_filter( 'pre_http_send_through_proxy', $proxy, PHP_INT_MAX );
		remove_action( 'http_api_curl', $curl, PHP_INT_MAX );
	}
}

/**
 * Reads a response of the HTTP API.
 *
 * @param array|\WP_Error $response Response.
 * @return array See request().
 */
function read_answer( $response ) {
	if ( is_wp_error( $response ) ) {
		return array(
			'status'      => 0,
			'body'        => null,
			'text'        => '',
			'retry_after' => '',
			'own'         => false,
			'error'       => one_line( $response->get_error_message() ),
		);
	}
	$body = json_decode( wp_remote_retrieve_body( $response ), true );
	return array(
		'status'      => (int) wp_remote_retrieve_response_code( $response ),
		'body'        => is_array( $body ) ? $body : null,
		'text'        => substr( wp_remote_retrieve_body( $response ), 0, 500 ),
		'retry_after' => (string) wp_remote_retrieve_header( $response, 'retry-after' ),
		'own'         => '' !== (string) wp_remote_retrieve_header( $response, 'mailsidecar' ),
		'error'       => '',
	);
}

/*
 * What can be wrong
 */

/**
 * Looks for faults that stop mail: in settings, connection, key, relays and other
 * plugins.
 *
 * @return array{0: string, 1: string[]} Status as in Site Health (good,
 *         recommended, critical) and one sentence for each finding.
 */
function diagnose() {
	if ( '' === base_url() ) {
		return array(
			'recommended',
			array( __( 'MAILSIDECAR_URL is not set, so that mailsidecar is not used. Define it in wp-config.php; PHP-FPM drops environment variables.', 'mailsidecar' ) ),
		);
	}
	$critical    = service_findings( request( 'GET', '/v1/relays', CONNECT_TIMEOUT ) );
	$recommended = site_findings();
	if ( ! $critical ) {
		$recommended = array_merge( refusal_findings( request( 'GET', '/v1/messages?limit=5', CONNECT_TIMEOUT ) ), $recommended );
	}
	$status = $critical ? 'critical' : ( $recommended ? 'recommended' : 'good' );
	return array( $status, array_merge( $critical, $recommended ) );
}

/**
 * What is wrong with an answer, and what to do about it.
 *
 * @param array  $answer Answer to a request that should be answered with 200 or 202.
 * @param string $member Member that the answer must have.
 * @return array{code: string, found: string, do: string}|null Null when nothing is. The
 *         code is that of the server's problem, or unreachable, foreign, broken.
 */
function trouble( $answer, $member ) {
	$status = $answer['status'];
	$body   = (array) $answer['body'];
	$code   = text_of( $body, 'code' );
	$detail = text_of( $body, 'detail' );
	if ( 0 === $status ) {
		$late = preg_match( '/cURL error 28\b|timed out/i', $answer['error'] );
		return array(
			'code'  => 'unreachable',
			/* translators: 1: URL, 2: reason. */
			'found' => sprintf( __( 'This site cannot reach mailsidecar at %1$s: %2$s.', 'mailsidecar' ), base_url(), rtrim( $answer['error'], '.' ) ),
			'do'    => $late
				? __( 'See whether mailsidecar runs and what its log says, and whether a firewall is between it and this site.', 'mailsidecar' )
				: __( 'See whether mailsidecar runs, and whether MAILSIDECAR_URL is its address as this site sees it.', 'mailsidecar' ),
		);
	}
	if ( ! is_ours( $answer ) ) {
		return array(
			'code'  => 'foreign',
			'found' => ucfirst( foreign_answer( $status ) ) . '.',
			'do'    => '',
		);
	}
	if ( 401 === $status ) {
		return array(
			'code'  => 'unauthorized',
			'found' => __( 'The API key is missing or wrong.', 'mailsidecar' ) . ( '' === key_file_problem() ? '' : ' ' . key_file_problem() . '.' ),
			'do'    => __( 'Compare MAILSIDECAR_API_KEY with the MAILSIDECAR_API_KEYS of the server.', 'mailsidecar' ),
		);
	}
	if ( 200 === $status || 202 === $status ) {
		return isset( $body[ $member ] ) ? null : array(
			'code'  => 'broken',
			/* translators: %s: URL. */
			'found' => sprintf( __( 'The answer of %s cannot be read.', 'mailsidecar' ), base_url() ),
			'do'    => __( 'Try again. If it stays so, something between this site and mailsidecar changes its answers, such as a proxy.', 'mailsidecar' ),
		);
	}
	/* translators: 1: URL, 2: HTTP status. */
	$found = '' === $detail ? sprintf( __( '%1$s answers with HTTP %2$d.', 'mailsidecar' ), base_url(), $status ) : $detail;
	$do    = 500 <= $status ? __( 'The log of the server says more.', 'mailsidecar' ) : '';
	if ( 'role_required' === $code ) {
		$do = __( 'On the server, give the key that role in MAILSIDECAR_KEY_ROLES, such as NAME:send|read, or remove its entry there: a key without an entry may send and read.', 'mailsidecar' );
	} elseif ( 'queue_required' === $code ) {
		$found = __( 'The server has no queue (MAILSIDECAR_QUEUE=none): it keeps no log, and no mail waits in it.', 'mailsidecar' );
	}
	return array(
		'code'  => $code,
		'found' => $found,
		'do'    => $do,
	);
}

/**
 * One member of an answer, as one line of text.
 *
 * @param mixed  $from Part of an answer.
 * @param string $name Name of the member.
 * @return string Empty when it is not there, or no text.
 */
function text_of( $from, $name ) {
	return is_array( $from ) && isset( $from[ $name ] ) && is_scalar( $from[ $name ] ) ? one_line( $from[ $name ] ) : '';
}

/**
 * One member of an answer that is a list of objects.
 *
 * @param mixed  $from Part of an answer.
 * @param string $name Name of the member.
 * @return array[]
 */
function list_of( $from, $name ) {
	$list = is_array( $from ) && isset( $from[ $name ] ) && is_array( $from[ $name ] ) ? $from[ $name ] : array();
	return array_values( array_filter( $list, 'is_array' ) );
}

/**
 * One member of an answer that is a time.
 *
 * @param mixed  $from Part of an answer.
 * @param string $name Name of the member.
 * @return int Seconds since 1970; 0 when it is not there.
 */
function time_of( $from, $name ) {
	$text = text_of( $from, $name );
	return '' === $text ? 0 : (int) strtotime( $text );
}

/**
 * Returns the faults of mailsidecar and its relays.
 *
 * @param array $answer Answer to GET /v1/relays.
 * @return string[]
 */
function service_findings( $answer ) {
	$trouble = trouble( $answer, 'relays' );
	if ( null !== $trouble ) {
		return array( trim( $trouble['found'] . ' ' . $trouble['do'] ) );
	}
	$findings = array();
	$usable   = 0;
	foreach ( relays_of( $answer['body'] ) as $relay ) {
		if ( in_array( $relay['status'], array( 'failing', 'paused' ), true ) ) {
			/* translators: 1: name of a relay, 2: status, 3: reason. */
			$findings[] = sprintf( __( 'Relay %1$s is %2$s: %3$s. Mail waits in the queue.', 'mailsidecar' ), $relay['name'], $relay['status'], '' === $relay['reason'] ? $relay['found'] : $relay['reason'] );
		} else {
			++$usable;
		}
	}
	return $usable > 0 ? array() : $findings;
}

/**
 * Says so when the last mails were all refused: connection, key and login are right then,
 * and no mail arrives all the same.
 *
 * @param array $answer Answer to GET /v1/messages; another one without a queue.
 * @return string[]
 */
function refusal_findings( $answer ) {
	$messages = 200 === $answer['status'] && isset( $answer['body']['messages'] ) ? (array) $answer['body']['messages'] : array();
	$refused  = wp_list_filter( array_map( __NAMESPACE__ . '\to_array', $messages ), array( 'status' => 'failed' ) );
	if ( ! $messages || count( $refused ) < count( $messages ) ) {
		return array();
	}
	$replies = array_map( __NAMESPACE__ . '\reply_text', recipients_of( reset( $refused ) ) );
	$reply   = one_line( (string) reset( $replies ) );
	if ( 1 === count( $refused ) ) {
		/* translators: %s: reply of the relay. */
		return array( sprintf( __( 'The last mail was refused: %s', 'mailsidecar' ), $reply ) );
	}
	/* translators: 1: number of mails, 2: reply of the relay. */
	return array( sprintf( __( 'All of the last %1$d mails were refused, the newest one with: %2$s', 'mailsidecar' ), count( $refused ), $reply ) );
}

/**
 * Makes an array of what should be one.
 *
 * @param mixed $value Part of an answer.
 * @return array
 */
function to_array( $value ) {
	return (array) $value;
}

/**
 * Relays of an answer, each with every key that is read of it.
 *
 * @param array|null $body Decoded body.
 * @return array[]
 */
function relays_of( $body ) {
	$relays = array();
	foreach ( list_of( $body, 'relays' ) as $relay ) {
		$failure  = isset( $relay['failure'] ) ? $relay['failure'] : array();
		$advice   = list_of( $relay, 'advice' );
		$operator = isset( $relay['paused_by_operator'] ) && is_array( $relay['paused_by_operator'] ) ? $relay['paused_by_operator'] : null;
		$serving  = wp_list_pluck( wp_list_filter( list_of( $relay, 'ladder' ), array( 'serving' => true ) ), 'port' );
		$relays[] = array(
			'name'     => text_of( $relay, 'name' ),
			'status'   => text_of( $relay, 'status' ),
			'port'     => (int) reset( $serving ),
			'reason'   => one_line( implode( ' ', array_filter( array( text_of( $failure, 'reply_code' ), text_of( $failure, 'enhanced_code' ), text_of( $failure, 'text' ) ) ) ) ),
			'found'    => text_of( reset( $advice ), 'found' ),
			'do'       => text_of( reset( $advice ), 'do' ),
			'until'    => time_of( $relay, 'paused_until' ),
			'operator' => null !== $operator,
			'why'      => text_of( $operator, 'reason' ),
		);
	}
	return $relays;
}

/**
 * Returns the settings and plugins of this site that keep mail from mailsidecar,
 * or are unwise.
 *
 * @return string[]
 */
function site_findings() {
	global $phpmailer;

	$findings = array();
	if ( is_foreign( $phpmailer ) && ! is_on( 'FORCE' ) ) {
		/* translators: %s: name of a PHP class. */
		$findings[] = sprintf( __( 'Another plugin sends the mail (%s). Deactivate it, or define MAILSIDECAR_FORCE.', 'mailsidecar' ), get_class( $phpmailer ) );
	}
	$file = ( new \ReflectionFunction( 'wp_mail' ) )->getFileName();
	if ( 'pluggable.php' !== basename( (string) $file ) ) {
		/* translators: %s: name of a file. */
		$findings[] = sprintf( __( 'Another plugin has replaced wp_mail() (%s), and mail may pass mailsidecar by.', 'mailsidecar' ), $file );
	}
	if ( is_clear_text_to_public( base_url() ) ) {
		$findings[] = __( 'MAILSIDECAR_URL is plain http to a public address: mail and key can be read on the way. Use https.', 'mailsidecar' );
	}
	list( $from ) = setting( 'FROM' );
	if ( null !== $from && '' === configured_from()[0] ) {
		$findings[] = __( 'MAILSIDECAR_FROM is not an e-mail address, and is ignored.', 'mailsidecar' );
	}
	list( $wait ) = setting( 'WAIT' );
	if ( null !== $wait && null === duration_seconds( $wait ) ) {
		$findings[] = __( 'MAILSIDECAR_WAIT is neither seconds, such as 3, nor a duration, such as 3s or 1m: 3 s are used.', 'mailsidecar' );
	}
	list( $ca_file ) = setting( 'TLS_CA_FILE' );
	if ( null !== $ca_file && ! can_read( (string) $ca_file ) ) {
		$findings[] = unreadable( 'TLS_CA_FILE', $ca_file );
	}
	if ( '' !== key_file_problem() ) {
		$findings[] = key_file_problem();
	}
	return $findings;
}

/**
 * Says whether a URL is plain http to an address on the public internet. A name
 * without a dot is a container's or a host's in the same network.
 *
 * @param string $url URL.
 * @return bool
 */
function is_clear_text_to_public( $url ) {
	$host = trim( (string) wp_parse_url( $url, PHP_URL_HOST ), '[]' );
	if ( 'http' !== wp_parse_url( $url, PHP_URL_SCHEME ) || ( false === strpbrk( $host, '.:' ) ) ) {
		return false;
	}
	$address = filter_var( $host, FILTER_VALIDATE_IP ) ? $host : gethostbyname( $host );
	return false !== filter_var( $address, FILTER_VALIDATE_IP, FILTER_FLAG_NO_PRIV_RANGE | FILTER_FLAG_NO_RES_RANGE );
}

/*
 * Site Health
 */

/**
 * Adds the test.
 *
 * @param array $tests Tests so far.
 * @return array
 */
function add_site_health_test( $tests ) {
	load_translations();
	$tests['direct']['mailsidecar'] = array(
		'label' => __( 'Mail through mailsidecar', 'mailsidecar' ),
		'test'  => __NAMESPACE__ . '\site_health_test',
	);
	return $tests;
}

/**
 * The test.
 *
 * @return array
 */
function site_health_test() {
	list( $status, $findings ) = diagnose();

	$labels = array(
		'good'        => __( 'Mail goes out through mailsidecar', 'mailsidecar' ),
		'recommended' => __( 'Not all mail may go out through mailsidecar', 'mailsidecar' ),
		'critical'    => __( 'mailsidecar does not take mail, or cannot deliver it', 'mailsidecar' ),
	);
	if ( ! $findings ) {
		$findings[] = __( 'mailsidecar can be reached, takes the key, and has a relay that works or was not tried yet.', 'mailsidecar' );
	}
	return array(
		'label'       => $labels[ $status ],
		'status'      => $status,
		'badge'       => array(
			'label' => __( 'Mail', 'mailsidecar' ),
			'color' => 'critical' === $status ? 'red' : 'blue',
		),
		'description' => '<p>' . implode( '</p><p>', array_map( 'esc_html', $findings ) ) . '</p>',
		'actions'     => sprintf( '<p><a href="%s">%s</a></p>', esc_url( page_url( array( 'tab' => 'settings' ) ) ), esc_html__( 'Send a test mail', 'mailsidecar' ) ),
		'test'        => 'mailsidecar',
	);
}

/**
 * Every setting as it is in force, without the key.
 *
 * @return array[] Rows of name, value and source.
 */
function effective_settings() {
	list( $key, $key_source ) = api_key();

	$rows = array();
	foreach ( array( 'URL', 'FROM', 'FROM_NAME', 'TLS_CA_FILE' ) as $name ) {
		list( $value, $source ) = setting( $name );

		$rows[] = array( 'MAILSIDECAR_' . $name, null === $value ? __( 'not set', 'mailsidecar' ) : (string) $value, $source );
	}
	$rows[] = array( 'MAILSIDECAR_API_KEY', '' === $key ? __( 'not set', 'mailsidecar' ) : __( 'set', 'mailsidecar' ), $key_source );
	$rows[] = array( 'MAILSIDECAR_WAIT', (string) wait_seconds(), source_or_default( 'WAIT' ) );
	foreach ( array( 'FORCE', 'USE_PROXY', 'LOG' ) as $name ) {
		$rows[] = array( 'MAILSIDECAR_' . $name, is_on( $name, 'LOG' === $name ) ? 'true' : 'false', source_or_default( $name ) );
	}
	return $rows;
}

/**
 * Where a setting came from that has a default.
 *
 * @param string $name Name without MAILSIDECAR_.
 * @return string
 */
function source_or_default( $name ) {
	list( , $source ) = setting( $name );
	return '' === $source ? __( 'default', 'mailsidecar' ) : $source;
}

/**
 * Adds the settings to Site Health's information, for people who ask for help.
 *
 * @param array $info Information so far.
 * @return array
 */
function add_debug_information( $info ) {
	load_translations();
	$fields = array(
		'version' => array(
			'label' => __( 'Version', 'mailsidecar' ),
			'value' => VERSION,
		),
	);
	foreach ( effective_settings() as list( $name, $value, $source ) ) {
		$fields[ $name ] = array(
			'label' => $name,
			'value' => '' === $source ? $value : "$value ($source)",
		);
	}
	$info['mailsidecar'] = array(
		'label'  => 'mailsidecar',
		'fields' => $fields,
	);
	return $info;
}

/*
 * Test mail
 */

/**
 * Sends a test mail through wp_mail().
 *
 * @param string $to   Recipient.
 * @param bool   $html As HTML.
 * @return array{sent: bool, error: string, answer: array|null}
 */
function send_test( $to, $html ) {
	$error   = '';
	$collect = static function ( $failed ) use ( &$error ) {
		$error = $failed->get_error_message();
	};
	/* translators: %s: name of the site. */
	$subject = sprintf( __( 'Test mail from %s', 'mailsidecar' ), wp_specialchars_decode( get_bloginfo( 'name' ), ENT_QUOTES ) );
	$text    = __( 'This mail went from WordPress to mailsidecar, and from there to the relay.', 'mailsidecar' );
	$headers = array();
	if ( $html ) {
		$headers[] = 'Content-Type: text/html; charset=UTF-8';
		$text      = '<p>' . esc_html( $text ) . '</p>';
	}
	last_answer( array() );
	add_action( 'wp_mail_failed', $collect );
	$sent = wp_mail( $to, $subject, $text, $headers );
	remove_action( 'wp_mail_failed', $collect );
	$answer = last_answer();
	return array(
		'sent'   => (bool) $sent,
		'error'  => $error,
		'answer' => $answer ? $answer : null,
	);
}

/**
 * Returns the result of a test mail, in sentences.
 *
 * @param array $result Result of send_test().
 * @return string[]
 */
function describe_test( $result ) {
	if ( ! $result['sent'] ) {
		return array( '' === $result['error'] ? __( 'wp_mail() returned false.', 'mailsidecar' ) : $result['error'] );
	}
	if ( null === $result['answer'] ) {
		return array( __( 'wp_mail() returned true, but the mail did not pass through mailsidecar.', 'mailsidecar' ) );
	}
	$body  = (array) $result['answer']['body'];
	$lines = array(
		/* translators: 1: id of the message, 2: its status. */
		sprintf( __( 'Message %1$s is %2$s.', 'mailsidecar' ), isset( $body['id'] ) ? $body['id'] : '?', isset( $body['status'] ) ? $body['status'] : '?' ),
	);
	foreach ( recipients_of( $body ) as $recipient ) {
		$lines[] = rtrim( sprintf( '%s: %s %s', $recipient['email'], $recipient['state'], reply_text( array( 'email' => '' ) + $recipient ) ) );
	}
	return $lines;
}

/*
 * Whether mail flows
 */

/**
 * Whether mail flows, as the server said a moment ago. At most one page a minute asks,
 * and after a failure one in five minutes.
 *
 * @param bool $anew Ask now.
 * @return array See ask_state().
 */
function state( $anew = false ) {
	$kept = get_site_transient( 'mailsidecar_state' );
	$of   = wp_hash( VERSION . ' ' . base_url() . ' ' . api_key()[0] ); // After a change it is asked anew.
	if ( ! is_array( $kept ) || ! isset( $kept['of'], $kept['until'], $kept['state'] ) || $of !== $kept['of'] ) {
		$kept = array(
			'of'    => $of,
			'until' => 0,
			'state' => new_state( 'unknown', 3 ),
		);
	}
	if ( ! $anew && time() < $kept['until'] ) {
		return $kept['state'];
	}
	// Pages that are opened meanwhile do not ask, too.
	$kept['until'] = time() + 10 * STATE_TIMEOUT;
	set_site_transient( 'mailsidecar_state', $kept, DAY_IN_SECONDS );
	$kept['state'] = ask_state();
	$kept['until'] = time() + ( 3 <= $kept['state']['exit'] ? STATE_FRESH_FAILED : STATE_FRESH );
	set_site_transient( 'mailsidecar_state', $kept, DAY_IN_SECONDS );
	return $kept['state'];
}

/**
 * A state without numbers.
 *
 * @param string $verdict See ask_state().
 * @param int    $status  Exit status of the command line.
 * @param string $found   Cause.
 * @param string $advice  What to do about it.
 * @return array See ask_state().
 */
function new_state( $verdict, $status, $found = '', $advice = '' ) {
	return array(
		'verdict'  => $verdict,
		'exit'     => $status,
		'found'    => mb_substr( $found, 0, 1000 ),
		'do'       => mb_substr( $advice, 0, 1000 ),
		'statuses' => array(),
		'hour'     => array(),
		'oldest'   => 0,
		'no_queue' => false,
		'all_keys' => false,
	);
}

/**
 * Asks the server whether mail flows, in three requests at most and two seconds.
 *
 * @param int $timeout Seconds for each request.
 * @param int $max_age Seconds that mail may have been due for.
 * @return array With the members
 *               verdict: unset, down, refused, paused, waits, refusals, held, partly, flows
 *                        or unknown;
 *               exit: the status with which the server's command status would end;
 *               found, do: cause and remedy, in the server's words where it has any;
 *               statuses, hour: numbers of messages and of what happened, empty where
 *                        they are not known;
 *               oldest: since when the mail waits that has been due for the longest, or 0;
 *               no_queue, all_keys: the server has no queue; the numbers are of all keys.
 */
function ask_state( $timeout = STATE_TIMEOUT, $max_age = MAX_AGE ) {
	if ( '' === base_url() ) {
		return new_state( 'unset', 78, __( 'MAILSIDECAR_URL is not set, so that mailsidecar is not used.', 'mailsidecar' ), __( 'Define it in wp-config.php.', 'mailsidecar' ) );
	}
	$start   = microtime( true );
	$stats   = request( 'GET', '/v1/stats', $timeout );
	$trouble = trouble( $stats, 'statuses' );
	$code    = null === $trouble ? '' : $trouble['code'];
	$relays  = $stats;
	// A key that may only send, a server without a queue, and one from before the numbers: the relays tell.
	if ( in_array( $code, array( 'role_required', 'queue_required', 'not_found' ), true ) ) {
		$relays  = request( 'GET', '/v1/relays', $timeout );
		$trouble = trouble( $relays, 'relays' );
	}
	if ( 'queue_unavailable' === $code ) {
		return new_state( 'refused', 2, $trouble['found'], $trouble['do'] );
	}
	if ( null !== $trouble ) {
		return new_state( 'down', 'unauthorized' === $trouble['code'] ? 77 : 3, $trouble['found'], $trouble['do'] );
	}
	$state             = judge_relays( relays_of( $relays['body'] ), numbers_of( '' === $code ? $stats['body'] : array() ), $max_age );
	$state['no_queue'] = 'queue_required' === $code;
	if ( microtime( true ) - $start < $timeout ) {
		$ready = request( 'GET', '/readyz', $timeout );
		if ( 503 === $ready['status'] && is_ours( $ready ) ) {
			$why              = one_line( preg_replace( '/^not ready: */', '', $ready['text'] ) );
			$state['verdict'] = 'refused';
			$state['exit']    = 2;
			/* translators: %s: reason, in English. */
			$state['found'] = sprintf( __( 'The server takes no new mail: %s.', 'mailsidecar' ), '' === $why ? 'not ready' : $why );
			$state['do']    = __( 'Ask the operator of the server: "mailsidecar status" there says more.', 'mailsidecar' );
		}
	}
	return $state;
}

/**
 * The numbers of an answer to GET /v1/stats.
 *
 * @param array $body Decoded body, empty where there is none.
 * @return array Members of a state.
 */
function numbers_of( $body ) {
	$numbers = array();
	foreach ( array( 'statuses', 'hour' ) as $name ) {
		$numbers[ $name ] = array_map( 'intval', array_filter( isset( $body[ $name ] ) ? (array) $body[ $name ] : array(), 'is_int' ) );
	}
	$replies = list_of( $body, 'replies' );
	return $numbers + array(
		'oldest'   => time_of( $body, 'oldest_due' ),
		'all_keys' => '' === text_of( $body, 'key' ) && 1 < count( list_of( $body, 'keys' ) ),
		'reply'    => one_line( implode( ' ', array_filter( array( text_of( reset( $replies ), 'reply_code' ), text_of( reset( $replies ), 'enhanced_code' ), text_of( reset( $replies ), 'text' ) ) ) ) ),
	);
}

/**
 * Judges whether mail flows.
 *
 * @param array[] $relays  See relays_of().
 * @param array   $numbers See numbers_of().
 * @param int     $max_age Seconds that mail may have been due for.
 * @return array See ask_state().
 */
function judge_relays( $relays, $numbers, $max_age ) {
	$hour   = $numbers['hour'] + array_fill_keys( array( 'delivered', 'deferred', 'bounced' ), 0 );
	$old    = $numbers['oldest'] && time() - $numbers['oldest'] > $max_age;
	$bad    = array();
	$paused = false;
	$used   = 0;
	foreach ( $relays as $relay ) {
		$used  += '' === $relay['status'] ? 0 : 1; // Others are not configured any more.
		$paused = $paused || 'paused' === $relay['status'];
		if ( in_array( $relay['status'], array( 'paused', 'failing' ), true ) ) {
			$bad[] = $relay;
		}
	}
	$found  = '';
	$advice = '';
	if ( $bad && count( $bad ) === $used ) {
		$verdict = 'paused';
		$paused  = true;
	} elseif ( $old || ( 3 <= $hour['deferred'] && ! $hour['delivered'] ) ) {
		$verdict = 'waits';
		/* translators: %s: reply of the relay. */
		$found = '' === $numbers['reply'] ? '' : sprintf( __( 'The relay says: %s', 'mailsidecar' ), $numbers['reply'] );
	} elseif ( 3 <= $hour['bounced'] && $hour['bounced'] > $hour['delivered'] ) {
		$verdict = 'refusals';
		/* translators: %s: reply of the relay. */
		$found  = '' === $numbers['reply'] ? '' : sprintf( __( 'Mostly with: %s', 'mailsidecar' ), $numbers['reply'] );
		$advice = __( 'The log says for each message what the reply means and what to do.', 'mailsidecar' );
	} elseif ( ! empty( $numbers['statuses']['held'] ) ) {
		$verdict = 'held';
		$advice  = __( 'Try them again, send them to another address, or cancel them: the log says for each message why.', 'mailsidecar' );
	} else {
		$verdict = $bad ? 'partly' : 'flows';
	}
	if ( $bad && in_array( $verdict, array( 'paused', 'partly', 'waits' ), true ) ) {
		list( $found, $advice ) = relay_trouble( $bad[0] );
	}
	$state = new_state( $verdict, $paused ? 2 : ( $old ? 1 : 0 ), $found, $advice );
	foreach ( array( 'statuses', 'hour', 'oldest', 'all_keys' ) as $name ) {
		$state[ $name ] = $numbers[ $name ];
	}
	return $state;
}

/**
 * Why a relay cannot be used, and what to do about it.
 *
 * @param array $relay One of relays_of().
 * @return string[] Cause and remedy.
 */
function relay_trouble( $relay ) {
	$until = $relay['until'] ? ' ' . sprintf(
		/* translators: %s: time. */
		__( 'It is tried again at %s.', 'mailsidecar' ),
		time_text( $relay['until'] )
	) : '';
	if ( $relay['operator'] ) {
		/* translators: 1: name of a relay, 2: reason in brackets, or nothing. */
		$found = sprintf( __( 'An operator of the server keeps mail from %1$s%2$s.', 'mailsidecar' ), $relay['name'], '' === $relay['why'] ? '' : ' (' . $relay['why'] . ')' );
		return array( $found . $until, __( 'Ask who operates the server.', 'mailsidecar' ) );
	}
	$cause = '' === $relay['found'] ? $relay['reason'] : $relay['found'];
	/* translators: 1: name of a relay, 2: why it cannot be used. */
	return array( rtrim( sprintf( __( '%1$s: %2$s', 'mailsidecar' ), $relay['name'], $cause ), '. ' ) . '.' . $until, $relay['do'] );
}

/**
 * One sentence for it all.
 *
 * @param array $state See ask_state().
 * @return string
 */
function sentence( $state ) {
	$hour    = $state['hour'] + array_fill_keys( array( 'delivered', 'bounced' ), 0 );
	$waiting = waiting( $state );
	/* translators: %s: number of messages. */
	$number = sprintf( _n( '%s message waits', '%s messages wait', $waiting, 'mailsidecar' ), number_format_i18n( $waiting ) );
	$age    = $state['oldest'] ? max( 0, time() - $state['oldest'] ) : 0;
	switch ( $state['verdict'] ) {
		case 'unset':
			return __( 'mailsidecar is not used.', 'mailsidecar' );
		case 'unknown':
			return __( 'Whether mail flows is being asked.', 'mailsidecar' );
		case 'down':
			return __( 'No mail can be sent.', 'mailsidecar' );
		case 'refused':
			return __( 'New mail is refused.', 'mailsidecar' );
		case 'paused':
			return $waiting
				/* translators: %s: number of messages that wait. */
				? sprintf( __( 'Mail waits: no relay can be used, and %s.', 'mailsidecar' ), $number )
				: __( 'Mail waits: no relay can be used.', 'mailsidecar' );
		case 'waits':
			return $age
				/* translators: 1: number of messages that wait, 2: time, such as 20 min. */
				? sprintf( __( 'Mail waits: %1$s, one of them for %2$s.', 'mailsidecar' ), $number, age_text( $age ) )
				/* translators: %s: number of messages that wait. */
				: sprintf( __( 'Mail waits: nothing was sent in the last hour, and %s.', 'mailsidecar' ), $number );
		case 'refusals':
			/* translators: 1: number, 2: number. */
			return sprintf( __( 'Mail is refused: in the last hour relays took %1$s and refused %2$s.', 'mailsidecar' ), number_format_i18n( $hour['delivered'] ), number_format_i18n( $hour['bounced'] ) );
		case 'held':
			/* translators: %s: number of messages. */
			return sprintf( _n( '%s message waits for you to decide.', '%s messages wait for you to decide.', $state['statuses']['held'], 'mailsidecar' ), number_format_i18n( $state['statuses']['held'] ) );
	}
	if ( ! $state['hour'] ) {
		return $state['no_queue']
			? __( 'Mail flows. The server has no queue, and counts nothing.', 'mailsidecar' )
			: __( 'Mail flows. This key may not see the numbers.', 'mailsidecar' );
	}
	$sent = number_format_i18n( $hour['delivered'] );
	if ( 'partly' === $state['verdict'] ) {
		/* translators: %s: number of messages. */
		return sprintf( __( 'Mail flows by another relay: %s sent in the last hour.', 'mailsidecar' ), $sent );
	}
	if ( $age > 0 ) {
		/* translators: 1: number of messages, 2: time, such as 4 s. */
		return sprintf( __( 'Mail flows: %1$s sent in the last hour, none waits longer than %2$s.', 'mailsidecar' ), $sent, age_text( $age ) );
	}
	return $waiting
		/* translators: 1: number of messages, 2: number of messages that wait. */
		? sprintf( __( 'Mail flows: %1$s sent in the last hour; %2$s for the next try or its time.', 'mailsidecar' ), $sent, $number )
		/* translators: %s: number of messages. */
		: sprintf( __( 'Mail flows: %s sent in the last hour, none waits.', 'mailsidecar' ), $sent );
}

/**
 * How many messages wait.
 *
 * @param array $state See ask_state().
 * @return int
 */
function waiting( $state ) {
	return array_sum( array_intersect_key( $state['statuses'], array_flip( array( 'queued', 'deferred' ) ) ) );
}

/**
 * Writes how long something has taken.
 *
 * @param int $seconds Seconds.
 * @return string
 */
function age_text( $seconds ) {
	foreach ( array(
		'd'   => DAY_IN_SECONDS,
		'h'   => HOUR_IN_SECONDS,
		'min' => MINUTE_IN_SECONDS,
	) as $unit => $length ) {
		if ( $seconds >= 2 * $length ) {
			return floor( $seconds / $length ) . " $unit";
		}
	}
	return "$seconds s";
}

/**
 * Writes a time as the site writes times.
 *
 * @param int $time Seconds since 1970; 0 for none.
 * @return string
 */
function time_text( $time ) {
	return $time ? (string) wp_date( get_option( 'date_format' ) . ' ' . get_option( 'time_format' ), $time ) : '';
}

/**
 * Says which kind of notice a state is: error, warning, or success.
 *
 * @param array $state See ask_state().
 * @return string
 */
function severity( $state ) {
	if ( in_array( $state['verdict'], array( 'down', 'refused', 'paused' ), true ) ) {
		return 'error';
	}
	return in_array( $state['verdict'], array( 'flows', 'partly', 'unknown', 'unset' ), true ) ? 'success' : 'warning';
}

/**
 * Says on every page of wp-admin, to those who can do something about it, that mail waits
 * or fails.
 */
function render_notice() {
	$screen = get_current_screen();
	if ( '' === base_url() || ! current_user_can( capability() ) || ( $screen && 0 === strpos( $screen->id, 'tools_page_mailsidecar' ) ) ) {
		return;
	}
	load_translations();
	$state = state();
	if ( 'success' === severity( $state ) ) {
		return;
	}
	echo '<div class="notice notice-' . esc_attr( severity( $state ) ) . '">';
	render_state( $state );
	render_link();
	echo '</div>';
}

/**
 * Prints the sentence, cause and remedy.
 *
 * @param array $state See ask_state().
 */
function render_state( $state ) {
	printf( '<p><strong>%s</strong> %s</p>', esc_html( sentence( $state ) ), esc_html( $state['found'] ) );
	if ( '' !== $state['do'] ) {
		printf( '<p>%s</p>', esc_html( remedy( $state['do'] ) ) );
	}
}

/**
 * Says what to do.
 *
 * @param string $text Remedy, in the server's words where it has any.
 * @return string
 */
function remedy( $text ) {
	/* translators: %s: what to do. */
	return sprintf( __( 'What to do: %s', 'mailsidecar' ), ucfirst( $text ) );
}

/**
 * Prints the link to the page that says more.
 */
function render_link() {
	printf( '<p><a href="%s">%s</a></p>', esc_url( page_url() ), esc_html__( 'Mail log', 'mailsidecar' ) );
}

/**
 * Adds the widget to the dashboard.
 */
function add_dashboard_widget() {
	if ( '' === base_url() || ! current_user_can( capability() ) ) {
		return;
	}
	load_translations();
	wp_add_dashboard_widget( 'mailsidecar', __( 'Mail', 'mailsidecar' ), __NAMESPACE__ . '\render_dashboard_widget' );
}

/**
 * Prints the widget: the sentence, and what to do.
 */
function render_dashboard_widget() {
	load_translations();
	render_state( state() );
	render_link();
}

/*
 * Tools page
 */

/**
 * Returns the capability needed to see the page. In a network it is that of its
 * administrators, because the settings are the network's.
 *
 * @return string
 */
function capability() {
	return is_multisite() ? 'manage_network_options' : 'manage_options';
}

/**
 * Adds the page.
 */
function add_tools_page() {
	add_management_page( 'mailsidecar', 'mailsidecar', capability(), 'mailsidecar', __NAMESPACE__ . '\render_tools_page' );
}

/**
 * Address of the page.
 *
 * @param string[] $arguments Further arguments.
 * @return string
 */
function page_url( $arguments = array() ) {
	return add_query_arg( array_map( 'rawurlencode', $arguments ), admin_url( 'tools.php?page=mailsidecar' ) );
}

/**
 * Stops a request of somebody who may not make it.
 */
function allowed_or_die() {
	load_translations();
	if ( ! current_user_can( capability() ) ) {
		wp_die( esc_html__( 'You are not allowed to do this.', 'mailsidecar' ), '', array( 'response' => 403 ) );
	}
}

/**
 * Sends the test mail that the page's form asks for, and goes back to the page.
 */
function handle_test_form() {
	allowed_or_die();
	check_admin_referer( 'mailsidecar_test' );
	$to     = isset( $_POST['to'] ) ? sanitize_email( wp_unslash( $_POST['to'] ) ) : '';
	$result = is_email( $to )
		? send_test( $to, ! empty( $_POST['html'] ) )
		: array(
			'sent'   => false,
			'error'  => __( 'That is not an e-mail address.', 'mailsidecar' ),
			'answer' => null,
		);
	set_transient( 'mailsidecar_test_' . get_current_user_id(), $result, MINUTE_IN_SECONDS );
	wp_safe_redirect( page_url( array( 'tab' => 'settings' ) ) );
	exit;
}

/**
 * Prints the page: the log, one message of it, or the settings with a test mail.
 */
function render_tools_page() {
	if ( ! current_user_can( capability() ) ) {
		return;
	}
	load_translations();
	$settings = 'settings' === asked( 'tab' ) || '' === base_url();
	// WordPress hides all columns but one on a phone; the status stays.
	echo '<style>.mailsidecar .column-status{width:10%}.mailsidecar .column-time{width:14%}.mailsidecar .card{margin-bottom:20px}';
	echo '@media screen and (max-width:782px){.mailsidecar .wp-list-table td.column-status{display:block!important}}</style>';
	echo '<div class="wrap mailsidecar"><h1 class="wp-heading-inline">mailsidecar</h1><hr class="wp-header-end">';
	printf( '<nav class="nav-tab-wrapper" aria-label="%s">', esc_attr__( 'Pages of mailsidecar', 'mailsidecar' ) );
	render_tab( page_url(), __( 'Mail log', 'mailsidecar' ), ! $settings );
	render_tab( page_url( array( 'tab' => 'settings' ) ), __( 'Settings and test mail', 'mailsidecar' ), $settings );
	echo '</nav>';
	if ( $settings ) {
		render_test_result();
		render_diagnosis();
		render_test_form();
		render_settings();
	} elseif ( '' !== asked( 'mail' ) ) {
		render_message_page( asked( 'mail' ) );
	} else {
		render_log();
	}
	echo '</div>';
}

/**
 * Prints one tab.
 *
 * @param string $url     Its address.
 * @param string $text    Its name.
 * @param bool   $current It is the one that is shown.
 */
function render_tab( $url, $text, $current ) {
	printf( '<a href="%s" class="nav-tab%s"%s>%s</a>', esc_url( $url ), $current ? ' nav-tab-active' : '', $current ? ' aria-current="page"' : '', esc_html( $text ) );
}

/**
 * One argument of the page's address. It only selects what is shown. None has a name of
 * wp_removable_query_args(): WordPress takes those out of the address.
 *
 * @param string $name Name.
 * @return string
 */
function asked( $name ) {
	// phpcs:ignore WordPress.Security.NonceVerification.Recommended, WordPress.Security.ValidatedSanitizedInput -- Nothing is changed, and sanitize_text_field() would drop a "<" from a subject.
	$value = isset( $_GET[ $name ] ) ? wp_unslash( $_GET[ $name ] ) : '';
	return is_string( $value ) ? mb_substr( one_line( wp_check_invalid_utf8( $value ) ), 0, 500 ) : '';
}

/**
 * Prints the result of the test mail that was just sent.
 */
function render_test_result() {
	$transient = 'mailsidecar_test_' . get_current_user_id();
	$result    = get_transient( $transient );
	if ( ! is_array( $result ) ) {
		return;
	}
	delete_transient( $transient );
	printf( '<div class="notice notice-%s"><p>', $result['sent'] ? 'success' : 'error' );
	echo implode( '<br>', array_map( 'esc_html', describe_test( $result ) ) );
	echo '</p>';
	if ( $result['answer'] && null !== $result['answer']['body'] ) {
		printf(
			'<details><summary>%s</summary><pre>%s</pre></details>',
			esc_html__( 'The whole answer', 'mailsidecar' ),
			esc_html( wp_json_encode( $result['answer']['body'], JSON_PRETTY_PRINT | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE ) )
		);
	}
	echo '</div>';
}

/**
 * Prints what Site Health finds.
 */
function render_diagnosis() {
	$test  = site_health_test();
	$types = array(
		'good'        => 'success',
		'recommended' => 'warning',
		'critical'    => 'error',
	);
	printf(
		'<div class="notice notice-%s inline"><p><strong>%s</strong></p>%s</div>',
		esc_attr( $types[ $test['status'] ] ),
		esc_html( $test['label'] ),
		wp_kses_post( $test['description'] )
	);
}

/**
 * Prints the form for a test mail.
 */
function render_test_form() {
	?>
	<h2><?php esc_html_e( 'Test mail', 'mailsidecar' ); ?></h2>
	<form method="post" action="<?php echo esc_url( admin_url( 'admin-post.php' ) ); ?>">
		<input type="hidden" name="action" value="mailsidecar_test">
		<?php wp_nonce_field( 'mailsidecar_test' ); ?>
		<p>
			<label for="mailsidecar-to"><?php esc_html_e( 'To', 'mailsidecar' ); ?></label>
			<input type="email" id="mailsidecar-to" name="to" class="regular-text" required value="<?php echo esc_attr( wp_get_current_user()->user_email ); ?>">
			<label><input type="checkbox" name="html" value="1"> <?php esc_html_e( 'as HTML', 'mailsidecar' ); ?></label>
		</p>
		<?php submit_button( __( 'Send test mail', 'mailsidecar' ) ); ?>
	</form>
	<?php
}

/**
 * Prints the settings and their sources. They are changed in wp-config.php.
 */
function render_settings() {
	printf( '<h2>%s</h2>', esc_html__( 'Settings', 'mailsidecar' ) );
	render_table(
		array( __( 'Setting', 'mailsidecar' ), __( 'Value', 'mailsidecar' ), __( 'Source', 'mailsidecar' ) ),
		effective_settings()
	);
}

/**
 * Prints a table.
 *
 * @param string[] $head Names of the columns.
 * @param array[]  $rows Cells, not escaped.
 */
function render_table( $head, $rows ) {
	echo '<table class="widefat striped"><thead><tr>';
	foreach ( $head as $cell ) {
		printf( '<th scope="col">%s</th>', esc_html( $cell ) );
	}
	echo '</tr></thead><tbody>';
	foreach ( $rows as $row ) {
		echo '<tr>';
		foreach ( $row as $cell ) {
			printf( '<td>%s</td>', nl2br( esc_html( $cell ) ) );
		}
		echo '</tr>';
	}
	echo '</tbody></table>';
}

/*
 * Mail log
 */

/**
 * Words for the statuses of messages and the states of recipients.
 *
 * @return string[]
 */
function status_words() {
	return array(
		'waiting'   => __( 'Waiting', 'mailsidecar' ),
		'queued'    => __( 'Queued', 'mailsidecar' ),
		'deferred'  => __( 'Deferred', 'mailsidecar' ),
		'held'      => __( 'Held', 'mailsidecar' ),
		'delivered' => __( 'Delivered', 'mailsidecar' ),
		'partial'   => __( 'Partly delivered', 'mailsidecar' ),
		'failed'    => __( 'Failed', 'mailsidecar' ),
		'canceled'  => __( 'Canceled', 'mailsidecar' ),
		'bounced'   => __( 'Bounced', 'mailsidecar' ),
		'expired'   => __( 'Expired', 'mailsidecar' ),
	);
}

/**
 * The word for a status.
 *
 * @param string $status Status of a message or state of a recipient.
 * @return string
 */
function status_word( $status ) {
	$words = status_words();
	return isset( $words[ $status ] ) ? $words[ $status ] : $status;
}

/**
 * Makes the parameters of GET /v1/messages of what people write.
 *
 * @param string $words  An address, "@" and a domain, an id, or words of a subject.
 * @param string $status Status; others are left out.
 * @param string $since  Day, as 2030-01-31, or a time of RFC 3339.
 * @param string $until  The last day, or a time of RFC 3339.
 * @return string[]
 */
function log_filter( $words, $status, $since, $until ) {
	$filter = array();
	if ( preg_match( '/^[0-9a-f]{8}-[0-9a-f-]*$/i', $words ) ) {
		$filter['id'] = strtolower( $words );
	} elseif ( preg_match( '/^@[^\s@]+$/', $words ) ) {
		$filter['domain'] = substr( $words, 1 );
	} elseif ( preg_match( '/^[^\s@]+@[^\s@]+$/', $words ) ) {
		$filter['recipient'] = $words;
	} elseif ( '' !== $words ) {
		$filter['subject'] = $words;
	}
	if ( array_key_exists( $status, status_words() ) ) {
		$filter['status'] = $status;
	}
	return array_filter(
		$filter + array(
			'since' => day_begins( $since, 0 ),
			'until' => day_begins( $until, 1 ),
		),
		'strlen'
	);
}

/**
 * When a day begins where the site is.
 *
 * @param string $day   Day, as 2030-01-31; anything else is returned as it is.
 * @param int    $later Days later.
 * @return string Time of RFC 3339.
 */
function day_begins( $day, $later ) {
	$begin = preg_match( '/^\d{4}-\d\d-\d\d$/', $day ) ? date_create_immutable_from_format( '!Y-m-d', $day, wp_timezone() ) : false;
	return $begin ? $begin->modify( "+$later day" )->setTimezone( new \DateTimeZone( 'UTC' ) )->format( 'Y-m-d\TH:i:s\Z' ) : $day;
}

/**
 * Asks for a page of the log.
 *
 * @param string[] $filter See log_filter().
 * @param string   $cursor Where the page begins; empty for the newest.
 * @param int      $limit  Messages of the page.
 * @return array{messages: array[], next: string, back_to: int, trouble: array|null}
 */
function ask_log( $filter, $cursor, $limit ) {
	$query   = array_filter( $filter + array( 'cursor' => $cursor ), 'strlen' ) + array( 'limit' => $limit );
	$answer  = request( 'GET', '/v1/messages?' . http_build_query( $query, '', '&', PHP_QUERY_RFC3986 ), LOG_TIMEOUT );
	$trouble = trouble( $answer, 'messages' );
	if ( null !== $trouble && isset( $filter['subject'] ) && 'invalid_parameter' === $trouble['code'] && false !== strpos( $trouble['found'], 'subject' ) ) {
		$trouble['do'] = __( 'Search for an address or "@" and a domain; a newer mailsidecar also finds words of the subject.', 'mailsidecar' );
	}
	return array(
		'messages' => list_of( $answer['body'], 'messages' ),
		'next'     => text_of( $answer['body'], 'next' ),
		'back_to'  => time_of( $answer['body'], 'searched_back_to' ),
		'trouble'  => $trouble,
	);
}

/**
 * Recipients of a message in a few words.
 *
 * @param array $message Message of an answer.
 * @param int   $most    How many are named.
 * @param array $states  Only those in one of these states; empty for all.
 * @return string
 */
function recipient_text( $message, $most, $states = array() ) {
	$emails = array();
	foreach ( list_of( $message, 'recipients' ) as $recipient ) {
		if ( ! $states || in_array( text_of( $recipient, 'state' ), $states, true ) ) {
			$emails[] = text_of( $recipient, 'email' );
		}
	}
	$text = implode( ', ', array_slice( $emails, 0, $most ) );
	$more = count( $emails ) - $most;
	/* translators: 1: addresses, 2: number of further ones. */
	return $more > 0 ? sprintf( __( '%1$s, and %2$s more', 'mailsidecar' ), $text, number_format_i18n( $more ) ) : $text;
}

/**
 * Why a message is where it is: why it waits, or what the relay said of a recipient that
 * did not get it.
 *
 * @param array $message Message of an answer.
 * @return string
 */
function reason_text( $message ) {
	foreach ( list_of( $message, 'waits' ) as $wait ) {
		$until = time_text( time_of( $wait, 'until' ) );
		/* translators: 1: why a message waits, 2: time. */
		return '' === $until ? text_of( $wait, 'found' ) : sprintf( __( '%1$s (until %2$s)', 'mailsidecar' ), text_of( $wait, 'found' ), $until );
	}
	foreach ( recipients_of( $message ) as $recipient ) {
		if ( 'delivered' !== $recipient['state'] ) {
			return one_line( reply_text( array( 'email' => '' ) + $recipient ) );
		}
	}
	return '';
}

/**
 * Says whether the content of a message was removed.
 *
 * @param array $message Message of an answer.
 * @return bool False where it is not known, as in a list.
 */
function is_gone( $message ) {
	return isset( $message['content'] ) && is_array( $message['content'] ) && isset( $message['content']['kept'] ) && false === $message['content']['kept'];
}

/**
 * Says how long the content of a message is kept.
 *
 * @param array $message Message of an answer.
 * @return string Empty where it is not known.
 */
function content_text( $message ) {
	$content = isset( $message['content'] ) ? $message['content'] : array();
	$setting = text_of( $content, 'setting' );
	$until   = time_text( time_of( $content, 'until' ) );
	if ( is_gone( $message ) ) {
		$text = __( 'It is gone, so that the message cannot be sent again.', 'mailsidecar' );
		/* translators: %s: name of a setting. */
		return '' === $setting ? $text : $text . ' ' . sprintf( __( 'The setting %s of the server would have kept it longer.', 'mailsidecar' ), $setting );
	}
	/* translators: 1: time, 2: name of a setting. */
	return '' === $until ? '' : sprintf( __( 'It is kept until %1$s (%2$s of the server).', 'mailsidecar' ), $until, $setting );
}

/**
 * What can be done with a message.
 *
 * @param array $message Message of an answer.
 * @return array[] Action => name of the action, and states of the recipients that it concerns.
 */
function actions_of( $message ) {
	$all = array(
		'retry'  => array( __( 'Try again', 'mailsidecar' ), array( 'queued', 'deferred', 'held', 'bounced', 'expired' ) ),
		'resend' => array( __( 'Send to another address', 'mailsidecar' ), array() ),
		'cancel' => array( __( 'Cancel', 'mailsidecar' ), array( 'queued', 'deferred', 'held' ) ),
	);
	if ( is_gone( $message ) ) {
		unset( $all['retry'], $all['resend'] );
	}
	foreach ( $all as $action => list( , $states ) ) {
		if ( $states && '' === recipient_text( $message, 1, $states ) ) {
			unset( $all[ $action ] );
		}
	}
	return $all;
}

/**
 * Cuts a text for a table.
 *
 * @param string $text Text.
 * @return string
 */
function shorten( $text ) {
	return mb_strlen( $text ) > 200 ? mb_substr( $text, 0, 200 ) . '…' : $text;
}

/**
 * Prints the log.
 */
function render_log() {
	$filter = log_filter( asked( 's' ), asked( 'status' ), asked( 'since' ), asked( 'until' ) );
	$log    = ask_log( $filter, asked( 'cursor' ), LOG_PAGE );
	render_done();
	if ( null !== $log['trouble'] && ! in_array( $log['trouble']['code'], array( 'invalid_parameter', 'too_many_searches', 'busy' ), true ) ) {
		render_trouble( $log['trouble'] );
		return;
	}
	$state = state();
	if ( 'flows' !== $state['verdict'] ) {
		$state = state( true ); // So that trouble that is over is not shown.
	}
	printf( '<div class="notice notice-%s inline">', esc_attr( severity( $state ) ) );
	render_state( $state );
	if ( $state['all_keys'] ) {
		printf( '<p>%s</p>', esc_html__( 'This key has the role admin: the log shows the mail of all apps that use the server, not of this site alone. Give the site a key of its own.', 'mailsidecar' ) );
	}
	echo '</div>';
	render_statuses( $state );
	render_search( $filter );
	if ( null !== $log['trouble'] ) {
		render_trouble( $log['trouble'] );
		return;
	}
	render_messages( $log['messages'] );
	if ( $log['back_to'] ) {
		/* translators: %s: time. */
		printf( '<p>%s</p>', esc_html( sprintf( __( 'Searched back to %s; the next page goes on from there.', 'mailsidecar' ), time_text( $log['back_to'] ) ) ) );
	}
	render_pages( $log['next'] );
}

/**
 * Prints what is wrong, and what to do about it.
 *
 * @param array $trouble See trouble().
 */
function render_trouble( $trouble ) {
	printf( '<div class="notice notice-error inline"><p><strong>%s</strong></p>', esc_html( $trouble['found'] ) );
	if ( '' !== $trouble['do'] ) {
		printf( '<p>%s</p>', esc_html( remedy( $trouble['do'] ) ) );
	}
	echo '</div>';
}

/**
 * The arguments that select what the log shows.
 *
 * @return string[]
 */
function log_arguments() {
	$all = array();
	foreach ( array( 's', 'status', 'since', 'until' ) as $name ) {
		$all[ $name ] = asked( $name );
	}
	return array_filter( $all, 'strlen' );
}

/**
 * Prints the statuses as links, with how many messages each has.
 *
 * @param array $state See ask_state().
 */
function render_statuses( $state ) {
	$links = array();
	$words = array_diff_key( array( '' => __( 'All', 'mailsidecar' ) ) + status_words(), array_flip( array( 'queued', 'deferred', 'bounced', 'expired' ) ) );
	foreach ( $words as $status => $word ) {
		$arguments = array_diff_key( log_arguments(), array( 'status' => '' ) ) + ( '' === $status ? array() : array( 'status' => $status ) );
		$current   = asked( 'status' ) === $status;
		$number    = 'waiting' === $status ? waiting( $state ) : ( isset( $state['statuses'][ $status ] ) ? $state['statuses'][ $status ] : 0 );
		$count     = $number ? ' <span class="count">(' . esc_html( number_format_i18n( $number ) ) . ')</span>' : '';
		$links[]   = sprintf( '<li><a href="%s"%s>%s%s</a>', esc_url( page_url( $arguments ) ), $current ? ' class="current" aria-current="page"' : '', esc_html( $word ), $count );
	}
	// phpcs:ignore WordPress.Security.EscapeOutput.OutputNotEscaped -- Each part is.
	echo '<ul class="subsubsub">' . implode( ' |</li>', $links ) . '</li></ul>';
}

/**
 * Prints the form that searches.
 *
 * @param string[] $filter What it was understood as.
 */
function render_search( $filter ) {
	?>
	<form method="get" action="<?php echo esc_url( admin_url( 'tools.php' ) ); ?>">
		<input type="hidden" name="page" value="mailsidecar">
		<input type="hidden" name="status" value="<?php echo esc_attr( asked( 'status' ) ); ?>">
		<p class="search-box">
			<label for="mailsidecar-since"><?php esc_html_e( 'Since', 'mailsidecar' ); ?></label>
			<input type="date" id="mailsidecar-since" name="since" value="<?php echo esc_attr( asked( 'since' ) ); ?>">
			<label for="mailsidecar-until"><?php esc_html_e( 'until', 'mailsidecar' ); ?></label>
			<input type="date" id="mailsidecar-until" name="until" value="<?php echo esc_attr( asked( 'until' ) ); ?>">
			<label class="screen-reader-text" for="mailsidecar-search"><?php esc_html_e( 'Search mail', 'mailsidecar' ); ?></label>
			<input type="search" size="26" id="mailsidecar-search" name="s" value="<?php echo esc_attr( asked( 's' ) ); ?>" placeholder="<?php esc_attr_e( 'Address, @domain or subject', 'mailsidecar' ); ?>">
			<?php submit_button( __( 'Search mail', 'mailsidecar' ), '', '', false ); ?>
		</p>
	</form>
	<?php
	$understood = array(
		/* translators: %s: part of an id. */
		'id'        => __( 'Message whose id begins with %s', 'mailsidecar' ),
		/* translators: %s: domain. */
		'domain'    => __( 'Mail to addresses at %s', 'mailsidecar' ),
		/* translators: %s: address. */
		'recipient' => __( 'Mail to %s', 'mailsidecar' ),
		/* translators: %s: words. */
		'subject'   => __( 'Mail with these words in its subject: %s', 'mailsidecar' ),
	);
	foreach ( array_intersect_key( $understood, $filter ) as $name => $text ) {
		printf( '<p class="clear"><strong>%s</strong></p>', esc_html( sprintf( $text, $filter[ $name ] ) ) );
	}
}

/**
 * Prints the table of messages, with the markup of WordPress's own tables, whose pages have
 * numbers, which a log that grows at its beginning has not.
 *
 * @param array[] $messages Messages of an answer.
 */
function render_messages( $messages ) {
	$columns = array(
		'subject'   => __( 'Subject', 'mailsidecar' ),
		'recipient' => __( 'Recipient', 'mailsidecar' ),
		'status'    => __( 'Status', 'mailsidecar' ),
		'reason'    => __( 'Reason', 'mailsidecar' ),
		'time'      => __( 'Time', 'mailsidecar' ),
	);
	printf( '<table class="wp-list-table widefat fixed striped"><caption class="screen-reader-text">%s</caption><thead><tr>', esc_html__( 'Mail of this site, the newest first', 'mailsidecar' ) );
	foreach ( $columns as $name => $title ) {
		printf( '<th scope="col" class="manage-column column-%s%s">%s</th>', esc_attr( $name ), 'subject' === $name ? ' column-primary' : '', esc_html( $title ) );
	}
	echo '</tr></thead><tbody id="the-list">';
	if ( ! $messages ) {
		printf( '<tr class="no-items"><td class="colspanchange" colspan="5">%s</td></tr>', esc_html( log_arguments() || '' !== asked( 'cursor' ) ? __( 'No message matches on this page.', 'mailsidecar' ) : __( 'No mail yet. Send a test mail.', 'mailsidecar' ) ) );
	}
	foreach ( array_slice( $messages, 0, LOG_PAGE ) as $message ) {
		$cells = array(
			'recipient' => recipient_text( $message, 2 ),
			'status'    => status_word( text_of( $message, 'status' ) ),
			'reason'    => shorten( reason_text( $message ) ),
			'time'      => time_text( time_of( $message, 'created_at' ) ),
		);
		echo '<tr><td class="column-subject has-row-actions column-primary">';
		render_subject( $message );
		echo '</td>';
		foreach ( $cells as $name => $cell ) {
			printf( '<td class="column-%s" data-colname="%s"><bdi>%s</bdi></td>', esc_attr( $name ), esc_attr( $columns[ $name ] ), esc_html( $cell ) );
		}
		echo '</tr>';
	}
	echo '</tbody></table>';
}

/**
 * Prints the first cell of a message: its subject, and what can be done.
 *
 * @param array $message Message of an answer.
 */
function render_subject( $message ) {
	$id      = text_of( $message, 'id' );
	$subject = text_of( $message, 'subject' );
	printf( '<strong><a class="row-title" href="%s"><bdi>%s</bdi></a></strong>', esc_url( page_url( array( 'mail' => $id ) ) ), esc_html( '' === $subject ? __( '(no subject)', 'mailsidecar' ) : shorten( $subject ) ) );
	$links = array( sprintf( '<span><a href="%s">%s</a>', esc_url( page_url( array( 'mail' => $id ) ) ), esc_html__( 'Details', 'mailsidecar' ) ) );
	foreach ( actions_of( $message ) as $action => list( $name ) ) {
		$links[] = sprintf(
			'<span><a href="%s">%s</a>',
			esc_url(
				page_url(
					array(
						'mail' => $id,
						'do'   => $action,
					)
				)
			),
			esc_html( $name )
		);
	}
	// phpcs:ignore WordPress.Security.EscapeOutput.OutputNotEscaped -- Each part is.
	echo '<div class="row-actions">' . implode( ' | </span>', $links ) . '</span></div>';
	printf( '<button type="button" class="toggle-row"><span class="screen-reader-text">%s</span></button>', esc_html__( 'Show more details', 'mailsidecar' ) );
}

/**
 * Prints the links to the newest and to the next page.
 *
 * @param string $next Cursor of the next page; empty on the last.
 */
function render_pages( $next ) {
	echo '<div class="tablenav bottom"><div class="tablenav-pages">';
	if ( '' !== asked( 'cursor' ) ) {
		printf( '<a class="button" href="%s">%s</a> ', esc_url( page_url( log_arguments() ) ), esc_html__( 'Newest', 'mailsidecar' ) );
	}
	if ( '' !== $next ) {
		printf( '<a class="button" rel="next" href="%s">%s</a>', esc_url( page_url( log_arguments() + array( 'cursor' => $next ) ) ), esc_html__( 'Older', 'mailsidecar' ) );
	}
	echo '</div></div>';
}

/**
 * Asks for one message.
 *
 * @param string $id Id.
 * @return array{0: array, 1: array|null} Message, and what is wrong.
 */
function ask_message( $id ) {
	$answer = request( 'GET', '/v1/messages/' . rawurlencode( $id ), LOG_TIMEOUT );
	return array( (array) $answer['body'], trouble( $answer, 'id' ) );
}

/**
 * Prints one message, and the form for what is to be done with it.
 *
 * @param string $id Id.
 */
function render_message_page( $id ) {
	printf( '<p><a href="%s">%s</a></p>', esc_url( page_url() ), esc_html__( 'Back to the log', 'mailsidecar' ) );
	render_done();
	list( $message, $trouble ) = ask_message( $id );
	if ( null !== $trouble ) {
		render_trouble( $trouble );
		return;
	}
	$subject = text_of( $message, 'subject' );
	printf( '<h2><bdi>%s</bdi></h2>', esc_html( '' === $subject ? __( '(no subject)', 'mailsidecar' ) : $subject ) );
	$actions = actions_of( $message );
	if ( isset( $actions[ asked( 'do' ) ] ) ) {
		render_message_form( $message, asked( 'do' ), $actions[ asked( 'do' ) ] );
	} else {
		echo '<p>';
		foreach ( $actions as $action => list( $name ) ) {
			$arguments = array(
				'mail' => $id,
				'do'   => $action,
			);
			printf( '<a class="button" href="%s">%s</a> ', esc_url( page_url( $arguments ) ), esc_html( $name ) );
		}
		echo '</p>';
	}
	render_message( $message );
}

/**
 * Prints what is known of one message.
 *
 * @param array $message Message of an answer.
 */
function render_message( $message ) {
	$rows = array();
	foreach ( array(
		__( 'Status', 'mailsidecar' )         => status_word( text_of( $message, 'status' ) ),
		__( 'Sender', 'mailsidecar' )         => text_of( $message, 'sender' ),
		__( 'Time', 'mailsidecar' )           => time_text( time_of( $message, 'created_at' ) ),
		__( 'Not before', 'mailsidecar' )     => time_text( time_of( $message, 'send_at' ) ),
		__( 'Tried until', 'mailsidecar' )    => time_text( time_of( $message, 'expires_at' ) ),
		__( 'Size', 'mailsidecar' )           => (string) size_format( (int) text_of( $message, 'size' ) ),
		__( 'Content', 'mailsidecar' )        => content_text( $message ),
		__( 'Key', 'mailsidecar' )            => text_of( $message, 'key' ),
		__( 'Message-ID', 'mailsidecar' )     => text_of( $message, 'message_id' ),
		__( 'Id', 'mailsidecar' )             => text_of( $message, 'id' ),
		__( 'Sent again, of', 'mailsidecar' ) => text_of( $message, 'resent_of' ),
		__( 'Sent again, as', 'mailsidecar' ) => implode( "\n", array_map( __NAMESPACE__ . '\one_line', array_filter( isset( $message['resent_as'] ) ? (array) $message['resent_as'] : array(), 'is_scalar' ) ) ),
	) as $name => $value ) {
		if ( '' !== $value ) {
			$rows[] = array( $name, $value );
		}
	}
	foreach ( list_of( $message, 'waits' ) as $wait ) {
		$do     = text_of( $wait, 'do' );
		$until  = time_text( time_of( $wait, 'until' ) );
		$rows[] = array( __( 'Waits', 'mailsidecar' ), rtrim( text_of( $wait, 'found' ) . "\n$until" ) . ( '' === $do ? '' : "\n" . remedy( $do ) ) );
	}
	render_table( array( __( 'Message', 'mailsidecar' ), __( 'Value', 'mailsidecar' ) ), $rows );
	printf( '<h3>%s</h3>', esc_html__( 'Recipients', 'mailsidecar' ) );
	$rows = array();
	$all  = recipients_of( $message );
	foreach ( array_slice( $all, 0, LOG_ROWS ) as $recipient ) {
		$lines = array(
			reply_text( array( 'email' => '' ) + $recipient ),
			text_of( $recipient, 'found' ),
			'' === text_of( $recipient, 'do' ) ? '' : remedy( text_of( $recipient, 'do' ) ),
			/* translators: %s: name of a relay. */
			'' === text_of( $recipient, 'may_have_taken' ) ? '' : sprintf( __( 'The relay %s may have taken it: its reply never came.', 'mailsidecar' ), text_of( $recipient, 'may_have_taken' ) ),
			/* translators: %s: time. */
			time_of( $recipient, 'next_attempt_at' ) ? sprintf( __( 'Next try: %s', 'mailsidecar' ), time_text( time_of( $recipient, 'next_attempt_at' ) ) ) : '',
		);
		$rows[] = array( one_line( $recipient['email'] ), status_word( one_line( $recipient['state'] ) ), implode( "\n", array_filter( array_map( __NAMESPACE__ . '\one_line', $lines ), 'strlen' ) ) );
	}
	render_table( array( __( 'Recipient', 'mailsidecar' ), __( 'State', 'mailsidecar' ), __( 'What the relay said, and what to do', 'mailsidecar' ) ), $rows );
	if ( count( $all ) > LOG_ROWS ) {
		/* translators: %s: number. */
		printf( '<p>%s</p>', esc_html( sprintf( __( 'Further recipients: %s', 'mailsidecar' ), number_format_i18n( count( $all ) - LOG_ROWS ) ) ) );
	}
	render_attempts( $message );
}

/**
 * Prints the attempts to hand a message to a relay, the last one first.
 *
 * @param array $message Message of an answer.
 */
function render_attempts( $message ) {
	$attempts = array_reverse( list_of( $message, 'attempts' ) );
	printf( '<h3>%s</h3>', esc_html__( 'Attempts', 'mailsidecar' ) );
	if ( ! $attempts ) {
		printf( '<p>%s</p>', esc_html__( 'None yet.', 'mailsidecar' ) );
		return;
	}
	$rows = array();
	foreach ( array_slice( $attempts, 0, LOG_ROWS ) as $attempt ) {
		$lines = array();
		foreach ( list_of( $attempt, 'ladder' ) as $rung ) {
			if ( '' !== text_of( $rung, 'text' ) ) {
				/* translators: 1: port, 2: what failed. */
				$lines[] = sprintf( __( 'port %1$s: %2$s', 'mailsidecar' ), text_of( $rung, 'port' ), text_of( $rung, 'text' ) );
			}
		}
		foreach ( array_slice( list_of( $attempt, 'results' ), 0, 5 ) as $result ) {
			$reply   = array( text_of( $result, 'outcome' ), text_of( $result, 'reply_code' ), text_of( $result, 'enhanced_code' ), text_of( $result, 'text' ) );
			$lines[] = text_of( $result, 'email' ) . ': ' . implode( ' ', array_filter( $reply, 'strlen' ) );
		}
		$more = count( list_of( $attempt, 'results' ) ) - 5;
		if ( $more > 0 ) {
			/* translators: %s: number. */
			$lines[] = sprintf( __( 'Further recipients: %s', 'mailsidecar' ), number_format_i18n( $more ) );
		}
		$relay  = array( text_of( $attempt, 'relay' ), text_of( $attempt, 'port' ), text_of( $attempt, 'tls' ) );
		$rows[] = array( time_text( time_of( $attempt, 'started_at' ) ), implode( ' ', array_filter( $relay, 'strlen' ) ), number_format_i18n( (int) text_of( $attempt, 'duration_ms' ) ) . ' ms', implode( "\n", $lines ) );
	}
	render_table( array( __( 'Time', 'mailsidecar' ), __( 'Relay', 'mailsidecar' ), __( 'Took', 'mailsidecar' ), __( 'Result', 'mailsidecar' ) ), $rows );
	$earlier = count( $attempts ) - count( $rows ) + (int) text_of( $message, 'earlier_attempts' );
	if ( $earlier > 0 ) {
		/* translators: %s: number. */
		printf( '<p>%s</p>', esc_html( sprintf( __( 'Earlier attempts: %s', 'mailsidecar' ), number_format_i18n( $earlier ) ) ) );
	}
}

/**
 * Prints the form that asks before something is done with a message.
 *
 * @param array  $message Message of an answer.
 * @param string $action  One of actions_of().
 * @param array  $what    What that says of it.
 */
function render_message_form( $message, $action, $what ) {
	list( $name, $states ) = $what;
	$questions             = array(
		/* translators: %s: addresses. */
		'retry'  => __( 'Try now to deliver this message to %s? Recipients that have it do not get it again.', 'mailsidecar' ),
		/* translators: %s: addresses. */
		'cancel' => __( 'Cancel this message to %s? They do not get it, unless it is being delivered at this moment.', 'mailsidecar' ),
		/* translators: %s: addresses. */
		'resend' => __( 'The same message is sent to the address that you give, as a new one. It went to %s.', 'mailsidecar' ),
	);
	?>
	<form method="post" action="<?php echo esc_url( admin_url( 'admin-post.php' ) ); ?>" class="card">
		<input type="hidden" name="action" value="mailsidecar_message">
		<input type="hidden" name="message" value="<?php echo esc_attr( text_of( $message, 'id' ) ); ?>">
		<input type="hidden" name="do" value="<?php echo esc_attr( $action ); ?>">
		<input type="hidden" name="once" value="<?php echo esc_attr( wp_generate_uuid4() ); ?>">
		<?php wp_nonce_field( 'mailsidecar_message' ); ?>
		<p><?php echo esc_html( sprintf( $questions[ $action ], recipient_text( $message, 5, $states ) ) ); ?></p>
		<?php if ( 'resend' === $action ) : ?>
		<p>
			<label for="mailsidecar-to"><?php esc_html_e( 'To whom', 'mailsidecar' ); ?></label>
			<input type="email" id="mailsidecar-to" name="to" class="regular-text" required value="<?php echo esc_attr( asked( 'to' ) ); ?>">
		</p>
			<?php if ( '' !== asked( 'again' ) ) : ?>
		<p><label><input type="checkbox" name="again" value="1"> <?php esc_html_e( 'Send another copy, though this address has it or may get it', 'mailsidecar' ); ?></label></p>
			<?php endif; ?>
		<?php endif; ?>
		<p>
			<?php submit_button( $name, 'primary', '', false ); ?>
			<a class="button" href="<?php echo esc_url( page_url( array( 'mail' => text_of( $message, 'id' ) ) ) ); ?>"><?php esc_html_e( 'Do nothing', 'mailsidecar' ); ?></a>
		</p>
	</form>
	<?php
}

/**
 * Changes one message.
 *
 * @param string $id     Id.
 * @param string $action One of actions_of().
 * @param string $to     Address that it is sent to again.
 * @param bool   $again  Also where it went there before.
 * @param string $once   Makes a repeated request the same one.
 * @return array{ok: bool, code: string, found: string, do: string} What became of it.
 */
function change_message( $id, $action, $to = '', $again = false, $once = '' ) {
	$path = '/v1/messages/' . rawurlencode( $id );
	if ( 'cancel' === $action ) {
		$answer = request( 'DELETE', $path, LOG_TIMEOUT );
	} elseif ( 'retry' === $action ) {
		$answer = request( 'POST', "$path/retry", LOG_TIMEOUT );
	} else {
		$headers = array( 'Content-Type' => 'application/json' ) + ( '' === $once ? array() : array( 'Idempotency-Key' => $once ) );
		$body    = array( 'to' => $to ) + ( $again ? array( 'again' => true ) : array() );
		$answer  = request( 'POST', "$path/resend", LOG_TIMEOUT, $headers, (string) wp_json_encode( $body ) );
	}
	$trouble = trouble( $answer, 'id' );
	if ( null !== $trouble ) {
		return array( 'ok' => false ) + $trouble;
	}
	$waits = list_of( $answer['body'], 'waits' );
	$found = array(
		'retry'  => $waits ? text_of( $waits[0], 'found' ) : __( 'The message is tried again now. Look again in a few seconds.', 'mailsidecar' ),
		'cancel' => __( 'The message is canceled.', 'mailsidecar' ),
		/* translators: 1: address, 2: id of the new message. */
		'resend' => sprintf( __( 'The message is sent to %1$s, as %2$s.', 'mailsidecar' ), $to, text_of( $answer['body'], 'id' ) ),
	);
	return array(
		'ok'    => true,
		'code'  => '',
		'found' => $found[ $action ],
		'do'    => $waits ? text_of( $waits[0], 'do' ) : '',
	);
}

/**
 * Does what the form of a message asks for, and goes back to the message.
 */
function handle_message_form() {
	allowed_or_die();
	check_admin_referer( 'mailsidecar_message' );
	$posted = array();
	foreach ( array( 'message', 'do', 'to', 'again', 'once' ) as $name ) {
		// phpcs:ignore WordPress.Security.ValidatedSanitizedInput -- sanitize_text_field() would make another address of one with a "%41".
		$value           = isset( $_POST[ $name ] ) ? wp_unslash( $_POST[ $name ] ) : '';
		$posted[ $name ] = is_string( $value ) ? one_line( wp_check_invalid_utf8( $value ) ) : '';
	}
	if ( ! in_array( $posted['do'], array( 'retry', 'resend', 'cancel' ), true ) || '' === $posted['message'] ) {
		wp_die( esc_html__( 'This form is not complete.', 'mailsidecar' ), '', array( 'response' => 400 ) );
	}
	$back = array( 'mail' => $posted['message'] );
	$done = change_message( $posted['message'], $posted['do'], $posted['to'], '' !== $posted['again'], $posted['once'] );
	if ( ! $done['ok'] && 'resend' === $posted['do'] ) {
		$back += array(
			'do' => 'resend',
			'to' => $posted['to'],
		);
		$back += 'already_resent' === $done['code'] ? array( 'again' => '1' ) : array();
	}
	set_transient( 'mailsidecar_done_' . get_current_user_id(), $done, MINUTE_IN_SECONDS );
	wp_safe_redirect( page_url( $back ) );
	exit;
}

/**
 * Prints what became of the last change.
 */
function render_done() {
	$transient = 'mailsidecar_done_' . get_current_user_id();
	$done      = get_transient( $transient );
	if ( ! is_array( $done ) ) {
		return;
	}
	delete_transient( $transient );
	printf( '<div class="notice notice-%s inline" role="status"><p>%s</p>', $done['ok'] ? 'success' : 'error', esc_html( $done['found'] ) );
	if ( '' !== $done['do'] ) {
		printf( '<p>%s</p>', esc_html( remedy( $done['do'] ) ) );
	}
	echo '</div>';
}

/*
 * WP-CLI
 */

/**
 * Sends a test mail and prints what became of it.
 *
 * ## OPTIONS
 *
 * <to>
 * : Recipient.
 *
 * [--html]
 * : Send HTML.
 *
 * @param string[] $args    Arguments.
 * @param array    $options Options.
 */
function cli_test( $args, $options ) {
	load_translations();
	$result = send_test( $args[0], ! empty( $options['html'] ) );
	$lines  = describe_test( $result );
	if ( ! $result['sent'] ) {
		\WP_CLI::error( implode( "\n", $lines ) );
	}
	array_map( array( 'WP_CLI', 'log' ), array_slice( $lines, 1 ) );
	\WP_CLI::success( $lines[0] );
}

/**
 * Tells whether mail flows, with the settings and what is wrong.
 *
 * The exit status is that of the server's command "mailsidecar status": 0 mail flows; 1
 * something has been due for longer than --max-age; 2 a relay cannot be used, or new mail is
 * refused; 3 no answer from the server, or none that helps; 77 the server wants another API
 * key; 78 MAILSIDECAR_URL is not set.
 *
 * ## OPTIONS
 *
 * [--max-age=<duration>]
 * : How long mail may have been due, such as 5m.
 * ---
 * default: 15m
 * ---
 *
 * @param string[] $args    Arguments.
 * @param array    $options Options.
 */
function cli_status( $args, $options = array() ) {
	load_translations();
	$max_age = duration_seconds( isset( $options['max-age'] ) ? $options['max-age'] : MAX_AGE );
	if ( null === $max_age ) {
		\WP_CLI::error( __( '--max-age is not a duration, such as 5m or 1h30m.', 'mailsidecar' ) );
	}
	$state = ask_state( CONNECT_TIMEOUT, (int) $max_age );
	foreach ( effective_settings() as list( $name, $value, $source ) ) {
		\WP_CLI::log( rtrim( sprintf( '%-26s %s %s', $name, $value, '' === $source ? '' : "($source)" ) ) );
	}
	if ( ! in_array( $state['verdict'], array( 'unset', 'down' ), true ) ) {
		foreach ( relays_of( request( 'GET', '/v1/relays', CONNECT_TIMEOUT )['body'] ) as $relay ) {
			\WP_CLI::log( rtrim( sprintf( '%-26s %s %s %s', $relay['name'], $relay['status'], $relay['port'] ? $relay['port'] : '', $relay['reason'] ) ) );
		}
	}
	foreach ( 'unset' === $state['verdict'] ? array() : site_findings() as $finding ) {
		\WP_CLI::warning( $finding );
	}
	$lines = array_filter( array( sentence( $state ), $state['found'], '' === $state['do'] ? '' : remedy( $state['do'] ) ), 'strlen' );
	if ( 'success' === severity( $state ) && 0 === $state['exit'] ) {
		\WP_CLI::success( implode( "\n", $lines ) );
	} elseif ( 0 === $state['exit'] ) {
		\WP_CLI::warning( implode( "\n", $lines ) );
	} else {
		\WP_CLI::error( implode( "\n", $lines ), false );
	}
	\WP_CLI::halt( $state['exit'] );
}

/**
 * Lists the mail of the site, the newest first, or shows one message.
 *
 * ## OPTIONS
 *
 * [<id>]
 * : A message, to be shown with its attempts.
 *
 * [--search=<words>]
 * : An address, "@" and a domain, or words of the subject.
 *
 * [--status=<status>]
 * : waiting, queued, deferred, held, delivered, partial, failed, canceled, bounced or expired.
 *
 * [--since=<day>]
 * : The first day, such as 2030-01-31.
 *
 * [--until=<day>]
 * : The last day.
 *
 * [--limit=<number>]
 * : How many messages.
 * ---
 * default: 20
 * ---
 *
 * [--cursor=<cursor>]
 * : Where to go on, as told after the list before.
 *
 * [--format=<format>]
 * : table, csv, json, yaml, ids or count.
 * ---
 * default: table
 * ---
 *
 * @param string[] $args    Arguments.
 * @param array    $options Options.
 */
function cli_log( $args, $options = array() ) {
	load_translations();
	cli_needs_url();
	$options += array_fill_keys( array( 'search', 'status', 'since', 'until', 'cursor' ), '' ) + array(
		'limit'  => 20,
		'format' => 'table',
	);
	if ( $args ) {
		cli_show( $args[0] );
		return;
	}
	if ( '' !== $options['status'] && ! array_key_exists( $options['status'], status_words() ) ) {
		/* translators: %s: list of words. */
		\WP_CLI::error( sprintf( __( '--status is one of %s.', 'mailsidecar' ), implode( ', ', array_keys( status_words() ) ) ) );
	}
	$log = ask_log( log_filter( $options['search'], $options['status'], $options['since'], $options['until'] ), $options['cursor'], (int) $options['limit'] );
	cli_fail( $log['trouble'] );
	$items = array();
	foreach ( $log['messages'] as $message ) {
		$items[] = array(
			'id'         => text_of( $message, 'id' ),
			'time'       => text_of( $message, 'created_at' ),
			'status'     => text_of( $message, 'status' ),
			'recipients' => recipient_text( $message, 2 ),
			'subject'    => shorten( text_of( $message, 'subject' ) ),
			'reason'     => shorten( reason_text( $message ) ),
		);
	}
	if ( 'ids' === $options['format'] ) {
		echo esc_html( implode( ' ', array_column( $items, 'id' ) ) );
		return;
	}
	\WP_CLI\Utils\format_items( $options['format'], $items, array( 'id', 'time', 'status', 'recipients', 'subject', 'reason' ) );
	if ( $log['back_to'] && 'table' === $options['format'] ) {
		/* translators: %s: time. */
		\WP_CLI::log( sprintf( __( 'Searched back to %s; the next page goes on from there.', 'mailsidecar' ), time_text( $log['back_to'] ) ) );
	}
	if ( '' !== $log['next'] && 'table' === $options['format'] ) {
		\WP_CLI::log( "--cursor={$log['next']}" );
	}
}

/**
 * Prints one message.
 *
 * @param string $id Id.
 */
function cli_show( $id ) {
	list( $message, $trouble ) = ask_message( $id );
	cli_fail( $trouble );
	foreach ( array( 'id', 'status', 'created_at', 'sender', 'subject', 'message_id', 'resent_of' ) as $name ) {
		if ( '' !== text_of( $message, $name ) ) {
			\WP_CLI::log( sprintf( '%-11s %s', $name, text_of( $message, $name ) ) );
		}
	}
	foreach ( recipients_of( $message ) as $recipient ) {
		\WP_CLI::log( one_line( sprintf( '%s: %s %s', $recipient['email'], $recipient['state'], reply_text( array( 'email' => '' ) + $recipient ) ) ) );
		cli_advice( $recipient );
	}
	foreach ( list_of( $message, 'waits' ) as $wait ) {
		cli_advice( $wait );
	}
	foreach ( list_of( $message, 'attempts' ) as $attempt ) {
		\WP_CLI::log( sprintf( '%s %s %s, %s ms', text_of( $attempt, 'started_at' ), text_of( $attempt, 'relay' ), text_of( $attempt, 'port' ), text_of( $attempt, 'duration_ms' ) ) );
		foreach ( list_of( $attempt, 'results' ) as $result ) {
			\WP_CLI::log( rtrim( sprintf( '  %s: %s %s %s %s', text_of( $result, 'email' ), text_of( $result, 'outcome' ), text_of( $result, 'reply_code' ), text_of( $result, 'enhanced_code' ), text_of( $result, 'text' ) ) ) );
		}
	}
}

/**
 * Prints cause and remedy of a recipient or a wait.
 *
 * @param array $part Part of an answer.
 */
function cli_advice( $part ) {
	if ( '' !== text_of( $part, 'found' ) ) {
		\WP_CLI::log( '  ' . text_of( $part, 'found' ) );
	}
	if ( '' !== text_of( $part, 'do' ) ) {
		\WP_CLI::log( '  -> ' . text_of( $part, 'do' ) );
	}
}

/**
 * Ends the command where there is no server to ask.
 */
function cli_needs_url() {
	if ( '' === base_url() ) {
		\WP_CLI::error( __( 'MAILSIDECAR_URL is not set, so that mailsidecar is not used.', 'mailsidecar' ) );
	}
}

/**
 * Ends the command where something is wrong.
 *
 * @param array|null $trouble See trouble().
 */
function cli_fail( $trouble ) {
	if ( null !== $trouble ) {
		\WP_CLI::error( trim( $trouble['found'] . "\n" . ( '' === $trouble['do'] ? '' : remedy( $trouble['do'] ) ) ) );
	}
}

/**
 * Tries a message again now, for the recipients that do not have it.
 *
 * ## OPTIONS
 *
 * <id>
 * : The message.
 *
 * @param string[] $args Arguments.
 */
function cli_retry( $args ) {
	cli_change( $args[0], 'retry' );
}

/**
 * Cancels a message, for the recipients that do not have it.
 *
 * ## OPTIONS
 *
 * <id>
 * : The message.
 *
 * [--yes]
 * : Do not ask.
 *
 * @param string[] $args    Arguments.
 * @param array    $options Options.
 */
function cli_cancel( $args, $options = array() ) {
	load_translations();
	\WP_CLI::confirm( __( 'Cancel it? Recipients that do not have it do not get it.', 'mailsidecar' ), $options );
	cli_change( $args[0], 'cancel' );
}

/**
 * Sends a message to another address, as a new message.
 *
 * ## OPTIONS
 *
 * <id>
 * : The message.
 *
 * --to=<address>
 * : To whom.
 *
 * [--again]
 * : Send another copy, though that address has it or may get it.
 *
 * [--yes]
 * : Do not ask.
 *
 * @param string[] $args    Arguments.
 * @param array    $options Options.
 */
function cli_resend( $args, $options = array() ) {
	load_translations();
	/* translators: %s: address. */
	\WP_CLI::confirm( sprintf( __( 'Send the message to %s?', 'mailsidecar' ), $options['to'] ), $options );
	cli_change( $args[0], 'resend', $options['to'], ! empty( $options['again'] ) );
}

/**
 * Changes one message, and says what became of it.
 *
 * @param string $id     Id.
 * @param string $action One of actions_of().
 * @param string $to     Address that it is sent to again.
 * @param bool   $again  Also where it went there before.
 */
function cli_change( $id, $action, $to = '', $again = false ) {
	load_translations();
	cli_needs_url();
	$done = change_message( $id, $action, $to, $again );
	if ( 'already_resent' === $done['code'] ) {
		$done['do'] = __( 'With --again another copy is sent.', 'mailsidecar' );
	}
	cli_fail( $done['ok'] ? null : $done );
	\WP_CLI::success( trim( $done['found'] . "\n" . ( '' === $done['do'] ? '' : remedy( $done['do'] ) ) ) );
}
