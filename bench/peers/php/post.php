<?php
// What a PHP page does with the sidecar: one HTTP request for each mail, on a
// new connection, as WordPress's HTTP API makes it (with curl). Prints the
// milliseconds that each message took, one a line.
//
// usage: php post.php URL REQUEST_FILE RUN COUNT [PREFER]
declare(strict_types=1);

[, $url, $requestFile, $run, $count] = $argv;
$fields = ['Content-Type: application/json', 'Expect:'];
if (isset($argv[5])) {
    $fields[] = 'Prefer: ' . $argv[5];
}
$request = json_decode(file_get_contents($requestFile), true, flags: JSON_THROW_ON_ERROR);

for ($number = 0; $number < (int) $count; $number++) {
    $start = hrtime(true);
    $request['headers'] = ['X-Bench' => "$run-$number"];
    $curl = curl_init($url);
    curl_setopt_array($curl, [
        CURLOPT_POSTFIELDS => json_encode($request, JSON_THROW_ON_ERROR),
        CURLOPT_HTTPHEADER => $fields,
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_TIMEOUT => 60,
    ]);
    $answer = curl_exec($curl);
    $status = curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
    curl_close($curl);
    if ($status !== 200 && $status !== 202) {
        fwrite(STDERR, "answer $status: $answer\n");
        exit(1);
    }
    printf("%.3f\n", (hrtime(true) - $start) / 1e6);
}
