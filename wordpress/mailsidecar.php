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

add_filter( 'pre_wp_mail', __NAMESPACE__ . '\install_mailer', PHP_INT_MAX );
add_action( 'phpmailer_init', __NAMESPACE__ . '\adopt_mailer', PHP_INT_MAX );
add_filter( 'wp_mail_from', __NAMESPACE__ . '\filter_from', PHP_INT_MAX );
add_filter( 'wp_mail_from_name', __NAMESPACE__ . '\filter_from_name', PHP_INT_MAX );
add_filter( 'site_status_tests', __NAMESPACE__ . '\add_site_health_test' );
add_filter( 'debug_information', __NAMESPACE__ . '\add_debug_information' );
add_action( 'init', __NAMESPACE__ . '\load_translations' );
add_action( 'admin_menu', __NAMESPACE__ . '\add_tools_page' );
add_action( 'admin_post_mailsidecar_test', __NAMESPACE__ . '\handle_test_form' );

if ( defined( 'WP_CLI' ) && WP_CLI ) {
	\WP_CLI::add_command( 'mailsidecar test', __NAMESPACE__ . '\cli_test' );
	\WP_CLI::add_command( 'mailsidecar status', __NAMESPACE__ . '\cli_status' );
}

/**
 * Loads translations from mu-plugins/mailsidecar-languages, where there are any.
 */
function load_translations() {
	load_muplugin_textdomain( 'mailsidecar', 'mailsidecar-languages' );
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
 * Puts text on one line.
 *
 * @param string $text Text that may come from elsewhere.
 * @return string
 */
function one_line( $text ) {
	return trim( preg_replace( '/[\x00-\x1f\x7f]+/', ' ', (string) $text ) );
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
 * @return array{status: int, body: array|null, retry_after: string, own: bool, error: string}
 *         Status 0 with an error when there was no answer; body null when it is
 *         no JSON object.
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
		'limit_response_size' => null,
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
			'retry_after' => '',
			'own'         => false,
			'error'       => one_line( $response->get_error_message() ),
		);
	}
	$body = json_decode( wp_remote_retrieve_body( $response ), true );
	return array(
		'status'      => (int) wp_remote_retrieve_response_code( $response ),
		'body'        => is_array( $body ) ? $body : null,
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
	$status      = $critical ? 'critical' : ( $recommended ? 'recommended' : 'good' );
	return array( $status, array_merge( $critical, $recommended ) );
}

/**
 * Returns the faults of mailsidecar and its relays.
 *
 * @param array $answer Answer to GET /v1/relays.
 * @return string[]
 */
function service_findings( $answer ) {
	$failure = null;
	if ( 200 !== $answer['status'] ) {
		$failure = 0 === $answer['status']
			/* translators: 1: URL, 2: reason. */
			? sprintf( __( 'cannot reach %1$s: %2$s', 'mailsidecar' ), base_url(), $answer['error'] )
			/* translators: 1: URL, 2: HTTP status. */
			: sprintf( __( '%1$s answers with HTTP %2$d', 'mailsidecar' ), base_url(), $answer['status'] );
	}
	if ( 0 !== $answer['status'] && ! is_ours( $answer ) ) {
		$failure = foreign_answer( $answer['status'] );
	} elseif ( 401 === $answer['status'] ) {
		$failure = __( 'The API key is missing or wrong: compare MAILSIDECAR_API_KEY with the MAILSIDECAR_API_KEYS of the server.', 'mailsidecar' );
	}
	if ( null !== $failure ) {
		return array( $failure );
	}
	$findings = array();
	$usable   = 0;
	foreach ( relays_of( $answer['body'] ) as $relay ) {
		if ( in_array( $relay['status'], array( 'failing', 'paused' ), true ) ) {
			/* translators: 1: name of a relay, 2: status, 3: reason. */
			$findings[] = sprintf( __( 'Relay %1$s is %2$s: %3$s. Mail waits in the queue.', 'mailsidecar' ), $relay['name'], $relay['status'], $relay['reason'] );
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
	foreach ( isset( $body['relays'] ) && is_array( $body['relays'] ) ? $body['relays'] : array() as $relay ) {
		$relay    = (array) $relay + array(
			'name'    => '',
			'status'  => '',
			'ladder'  => array(),
			'failure' => array(),
		);
		$failure  = (array) $relay['failure'] + array(
			'reply_code'    => 0,
			'enhanced_code' => '',
			'text'          => '',
		);
		$serving  = wp_list_pluck( wp_list_filter( (array) $relay['ladder'], array( 'serving' => true ) ), 'port' );
		$relays[] = array(
			'name'   => (string) $relay['name'],
			'status' => (string) $relay['status'],
			'port'   => (int) reset( $serving ),
			'reason' => one_line( ( $failure['reply_code'] ? $failure['reply_code'] . ' ' . $failure['enhanced_code'] . ' ' : '' ) . $failure['text'] ),
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
		'actions'     => sprintf( '<p><a href="%s">%s</a></p>', esc_url( admin_url( 'tools.php?page=mailsidecar' ) ), esc_html__( 'Send a test mail', 'mailsidecar' ) ),
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
 * Sends the test mail that the page's form asks for, and goes back to the page.
 */
function handle_test_form() {
	if ( ! current_user_can( capability() ) ) {
		wp_die( esc_html__( 'You are not allowed to do this.', 'mailsidecar' ), '', array( 'response' => 403 ) );
	}
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
	wp_safe_redirect( admin_url( 'tools.php?page=mailsidecar' ) );
	exit;
}

/**
 * Prints the page.
 */
function render_tools_page() {
	if ( ! current_user_can( capability() ) ) {
		return;
	}
	echo '<div class="wrap"><h1>mailsidecar</h1>';
	render_test_result();
	render_diagnosis();
	render_test_form();
	render_settings();
	if ( '' !== base_url() ) {
		render_failures();
	}
	echo '</div>';
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
 * Prints the last messages that failed or wait for another try.
 */
function render_failures() {
	$rows = array();
	foreach ( array( 'failed', 'deferred' ) as $status ) {
		$answer = request( 'GET', '/v1/messages?limit=20&status=' . $status, CONNECT_TIMEOUT );
		if ( 200 !== $answer['status'] ) {
			return; // Without a queue nothing is kept; other reasons are said above.
		}
		$messages = isset( $answer['body']['messages'] ) ? (array) $answer['body']['messages'] : array();
		$rows     = array_merge( $rows, array_merge( ...array_map( __NAMESPACE__ . '\message_rows', $messages ), ...array( array() ) ) );
	}
	printf( '<h2>%s</h2>', esc_html__( 'Last failures', 'mailsidecar' ) );
	if ( ! $rows ) {
		printf( '<p>%s</p>', esc_html__( 'None.', 'mailsidecar' ) );
		return;
	}
	render_table(
		array( __( 'Time', 'mailsidecar' ), __( 'Subject', 'mailsidecar' ), __( 'Recipient', 'mailsidecar' ), __( 'State', 'mailsidecar' ), __( 'Reply of the relay', 'mailsidecar' ) ),
		$rows
	);
}

/**
 * Rows for one message, one for each recipient that was not reached.
 *
 * @param mixed $message Message of GET /v1/messages.
 * @return array[]
 */
function message_rows( $message ) {
	$message = (array) $message;
	$created = isset( $message['created_at'] ) && is_string( $message['created_at'] ) ? strtotime( $message['created_at'] ) : false;
	$rows    = array();
	foreach ( recipients_of( $message ) as $recipient ) {
		if ( 'delivered' !== $recipient['state'] ) {
			$rows[] = array(
				$created ? wp_date( get_option( 'date_format' ) . ' ' . get_option( 'time_format' ), $created ) : '',
				isset( $message['subject'] ) && is_string( $message['subject'] ) ? $message['subject'] : '',
				$recipient['email'],
				$recipient['state'],
				reply_text( array( 'email' => '' ) + $recipient ),
			);
		}
	}
	return $rows;
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
			printf( '<td>%s</td>', esc_html( $cell ) );
		}
		echo '</tr>';
	}
	echo '</tbody></table>';
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
	$result = send_test( $args[0], ! empty( $options['html'] ) );
	$lines  = describe_test( $result );
	if ( ! $result['sent'] ) {
		\WP_CLI::error( implode( "\n", $lines ) );
	}
	array_map( array( 'WP_CLI', 'log' ), array_slice( $lines, 1 ) );
	\WP_CLI::success( $lines[0] );
}

/**
 * Prints the settings, the relays, and what is wrong. Fails when mail does not
 * go out.
 */
function cli_status() {
	foreach ( effective_settings() as list( $name, $value, $source ) ) {
		\WP_CLI::log( rtrim( sprintf( '%-26s %s %s', $name, $value, '' === $source ? '' : "($source)" ) ) );
	}
	if ( '' !== base_url() ) {
		foreach ( relays_of( request( 'GET', '/v1/relays', CONNECT_TIMEOUT )['body'] ) as $relay ) {
			\WP_CLI::log( rtrim( sprintf( '%-26s %s %s %s', $relay['name'], $relay['status'], $relay['port'] ? $relay['port'] : '', $relay['reason'] ) ) );
		}
	}
	list( $status, $findings ) = diagnose();
	foreach ( $findings as $finding ) {
		\WP_CLI::warning( $finding );
	}
	if ( 'critical' === $status ) {
		\WP_CLI::error( __( 'Mail does not go out.', 'mailsidecar' ) );
	}
	\WP_CLI::success( __( 'mailsidecar can be reached and takes the key.', 'mailsidecar' ) );
}
