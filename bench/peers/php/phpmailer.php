<?php
// What a PHP page does without a sidecar: PHPMailer connects, negotiates TLS,
// authenticates, sends and quits, for each mail. Prints the milliseconds that
// each message took, one a line.
//
// usage: php phpmailer.php RELAY_PORT CA_FILE REQUEST_FILE RUN COUNT
declare(strict_types=1);

use PHPMailer\PHPMailer\PHPMailer;

require getenv('PHPMAILER') ?: 'libphp-phpmailer/autoload.php';

[, $port, $caFile, $requestFile, $run, $count] = $argv;
$request = json_decode(file_get_contents($requestFile), true, flags: JSON_THROW_ON_ERROR);

for ($number = 0; $number < (int) $count; $number++) {
    $start = hrtime(true);
    $mail = new PHPMailer(true);
    $mail->isSMTP();
    $mail->Host = 'localhost';
    $mail->Port = (int) $port;
    $mail->SMTPSecure = PHPMailer::ENCRYPTION_STARTTLS;
    $mail->SMTPOptions = ['ssl' => ['cafile' => $caFile]];
    $mail->SMTPAuth = true;
    $mail->AuthType = 'PLAIN';
    $mail->Username = 'bench';
    $mail->Password = 'bench';
    $mail->CharSet = PHPMailer::CHARSET_UTF8;
    $mail->setFrom('shop@example.com', 'Shop');
    $mail->addAddress('ana@example.org', 'Ana');
    $mail->Subject = $request['subject'];
    $mail->isHTML();
    $mail->Body = $request['html'];
    $mail->AltBody = $request['text'];
    $mail->addCustomHeader('X-Bench', "$run-$number");
    $mail->send();
    printf("%.3f\n", (hrtime(true) - $start) / 1e6);
}
