//! Hooks whose scripts run where their owner would run them: in the container itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use gantry_tests::{Container, Gantry, Options, wait_until, walk};

/// Serves HTTP on a port: what it was asked on port 3000, decisions about requests on another.
const SERVES: &str = r#"
use IO::Socket::INET;
my $port = shift;
my $door = IO::Socket::INET->new(LocalPort => $port, Listen => 9, ReuseAddr => 1) or die;
while (my $guest = $door->accept) {
    my ($method, $target) = split / /, (<$guest> // '');
    my (%fields, $body);
    while (my $line = <$guest>) {
        last if $line =~ /^\r?$/;
        $fields{lc $1} = $2 if $line =~ /^([^:]+):\s*(.*?)\r?$/;
    }
    read $guest, $body, $fields{'content-length'} // 0;
    my $about = $fields{'x-gantry-hook'} // '';
    my ($status, $more, $text) = ('204 No Content', '', '');
    if ($port == 3000) {
        ($status, $text) = ('200 OK', "$method $target user=$fields{'x-user'} $body\n");
    } elsif ($target =~ m{^/mark} && $about =~ /"service":"http"/) {
        $more = "X-Gantry-Hook: continue\r\nX-Gantry-Set-X-User: ann\r\nX-Gantry-Path: /marked\r\n";
    } elsif ($target =~ m{^/whole} && $about =~ /"phase":"head"/) {
        $more = "X-Gantry-Hook: body\r\n";
    } elsif ($target =~ m{^/whole}) {
        ($status, $text) = ('200 OK', uc "$body\n");
    } else {
        ($status, $text) = ('451 Closed', "not here\n");
    }
    $more .= 'Content-Length: ' . length($text) . "\r\n" if $status !~ /^204/;
    print $guest "HTTP/1.1 $status\r\nConnection: close\r\n$more\r\n$text";
    close $guest;
}"#;

/// Sets a hook by the API, for what `on` says, at the version that the document has.
fn set(gantry: &Gantry, container: &Container, on: &str, script: &str) -> Result<()> {
    let hooks = gantry.api_url(&format!("containers/{}/proxy/hooks", container.id));
    let version = gantry.curl_api().fetch(&hooks)?.expect(200)?;
    let version = version.json()?["data"]["etag"].as_str().unwrap_or_default().to_owned();
    let hook = format!(r#"{{"match":{on},"script":{{"path":"/{script}"}},"timeout":10000}}"#);
    let headers = ["-H", "Content-Type: application/json", "-H", &format!("If-Match: {version}")];
    let curl = gantry.curl_api().with(headers).with(["--data", &hook]);
    curl.fetch(&format!("{hooks}/http"))?.expect(201)?;
    Ok(())
}

#[test]
fn scripts_in_a_real_container_decide_about_the_requests_to_it() {
    walk(Options::embedded(), |gantry| {
        let project = gantry.create_project("hooked")?;
        let container = gantry.create_running(&project, &[])?;
        gantry.start_inside(&container, &["perl", "-e", SERVES, "3000"])?;
        let url = |path: &str| gantry.url(&container, "http-3000", path);
        gantry.wait_200(&url("/"), Duration::from_secs(30))?;
        set(gantry, &container, r#"{"path":"/mine/*"}"#, "mark")?;
        set(gantry, &container, r#"{"method":"PUT"}"#, "whole")?;
        set(gantry, &container, r#"{"path":"/secret"}"#, "block")?;
        // Nobody decides yet, so nobody gets by.
        let nobody = gantry.curl().fetch(&url("/secret"))?.expect(502)?;
        ensure!(nobody.header("x-gantry-error") == Some("HOOK_FAILED"), "{nobody:?}");
        gantry.start_inside(&container, &["perl", "-e", SERVES, "19802"])?;
        wait_until("the scripts decide", Duration::from_secs(30), || {
            gantry.curl().status(&url("/secret")) == 451
        })?;
        for (args, path, status, said) in [
            (&["-d", "x=1"][..], "/mine/a?b=c", 200, "POST /marked user=ann x=1\n"),
            (&["-d", "x=1"], "/yours", 200, "POST /yours user= x=1\n"),
            (&["-X", "PUT", "-d", "the body"], "/yours", 200, "THE BODY\n"),
            (&["-H", "X-User: eve"], "/mine/", 200, "GET /marked user=ann \n"),
            (&[], "/secret", 451, "not here\n"),
        ] {
            let args = args.iter().copied();
            let answer = gantry.curl().with(args).fetch(&url(path))?;
            ensure!(
                (answer.status, answer.text().as_str()) == (status, said),
                "{path}: {answer:?}"
            );
        }
        Ok(())
    });
}
