<?php
// A PHP site that replaces the id of a session every 20 pages, and ends a session after 500 pages.
//
// It runs in PHP's built-in server with several workers, so it counts in a file of the folder of the sessions.

function add(array $names): array
{
    $file = fopen(session_save_path() . '/counts.json', 'c+');
    flock($file, LOCK_EX);
    $counts = json_decode(stream_get_contents($file), true) ?: ['attempts' => 0, 'logins' => 0, 'rotations' => 0];
    foreach ($names as $name) {
        $counts[$name] += 1;
    }
    if ($names) {
        ftruncate($file, 0);
        rewind($file);
        fwrite($file, json_encode($counts));
    }
    fclose($file);
    return $counts;
}

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
if ($path === '/stats') {
    header('Content-Type: application/json');
    echo json_encode(add([]));
    return;
}
session_start();
if ($path === '/login') {
    if ($_SERVER['REQUEST_METHOD'] === 'POST') {
        $right = $_POST['username'] === 'alice' && $_POST['password'] === 'open-sesame';
        add($right ? ['attempts', 'logins'] : ['attempts']);
        if ($right) {
            session_regenerate_id(true);
            $_SESSION = ['user' => 'alice', 'uses' => 0, 'pages' => 0];
            header('Location: /page/0', true, 303);
            return;
        }
    }
    echo '<form method="post"><input name="username"><input name="password"></form>', "\n";
    return;
}
if (!isset($_SESSION['user']) || $_SESSION['pages'] >= 500) {
    http_response_code(401);
    echo "log in\n";
    return;
}
if (str_starts_with($path, '/forbidden/')) {
    http_response_code(403);
    echo "forbidden\n";
    return;
}
$_SESSION['pages'] += 1;
$_SESSION['uses'] += 1;
if ($_SESSION['uses'] >= 20) {
    $_SESSION['uses'] = 0;
    session_regenerate_id(true);
    add(['rotations']);
}
header('Content-Type: text/plain');
echo 'page ', basename($path), ' of ', $_SESSION['user'], "\n";
