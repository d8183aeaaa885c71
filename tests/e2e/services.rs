//! Kit services that the Kit does not bring, and what of a container's own takes their place.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use gantry_tests::{Container, Gantry, Options, wait_until, walk};

/// Serves HTTP on each of some ports: what it was asked.
const TELLS: &str = r#"
use IO::Socket::INET;
while (my $port = shift) {
    next if @ARGV and fork;
    my $door = IO::Socket::INET->new(LocalPort => $port, Listen => 9, ReuseAddr => 1) or die;
    while (my $guest = $door->accept) {
        my ($method, $target) = split / /, (<$guest> // '');
        while (my $line = <$guest>) { last if $line =~ /^\r?$/; }
        my $text = "$port $method $target\n";
        print $guest "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " . length($text)
            . "\r\n\r\n$text";
        close $guest;
    }
}"#;

/// A program that ends when this is dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Serves a page about its connections on port 443 of a container: OpenSSL, in the container's network.
fn serves_tls(gantry: &Gantry, container: &Container) -> Result<Program> {
    let place = gantry.state();
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let files = ["-subj", "/CN=own", "-keyout", "tls.pem", "-out", "tls.crt"];
    let made = Command::new("openssl")
        .args(new)
        .args(files)
        .current_dir(&place)
        .output()
        .context("openssl")?;
    ensure!(made.status.success(), "{made:?}");
    let net = format!("--net=/proc/{}/ns/net", gantry.init_pid(container)?);
    let serve = ["openssl", "s_server", "-accept", "0.0.0.0:443", "-www", "-quiet"];
    let child = Command::new("nsenter")
        .args([&net, "--"])
        .args(serve)
        .args(["-cert", "tls.crt", "-key", "tls.pem"])
        .current_dir(&place)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Ok(Program(child.context("nsenter")?))
}

#[test]
fn programs_of_a_real_container_take_the_place_of_services_that_the_kit_lacks() {
    walk(Options::embedded(), |gantry| {
        let project = gantry.create_project("own-services")?;
        let container = gantry.create_running(&project, &[])?;
        let url = |service: &str, path: &str| gantry.url(&container, service, path);
        let absent = gantry.curl().fetch(&url("code-1", "/"))?.expect(501)?;
        ensure!(absent.header("x-gantry-error") == Some("SERVICE_NOT_PROVIDED"), "{absent:?}");
        ensure!(absent.text().contains("listens on its port 19806"), "{absent:?}");
        gantry.start_inside(&container, &["perl", "-e", TELLS, "19806", "19821", "20001", "80"])?;
        let _tls = serves_tls(gantry, &container)?;
        for (service, path, said) in [
            ("code-2", "/?id=9", "19806 GET /?folder=/root&id=2"),
            ("code-2", "/static/a.js", "19806 GET /static/a.js?id=2"),
            ("display-7", "/a?display=9&x=1", "19821 GET /a?x=1&display=7"),
            ("http", "/a?display=9", "80 GET /a?display=9"),
        ] {
            let at = url(service, path);
            // The edge would wait for no program: this one may need a moment.
            wait_until("the program listens", Duration::from_secs(30), || {
                gantry.curl().status(&at) == 200
            })?;
            let answer = gantry.curl().fetch(&at)?.expect(200)?;
            ensure!(answer.text().trim_end() == said, "{at}: {answer:?}");
        }
        let at = url("https", "/");
        wait_until("the program listens", Duration::from_secs(30), || {
            gantry.curl().status(&at) == 200
        })?;
        let page = gantry.curl().fetch(&at)?.expect(200)?;
        ensure!(page.text().contains("s_server -accept 0.0.0.0:443"), "{page:?}");
        // Where the Kit's terminals listen nobody is asked for a desktop.
        let desktop = gantry.curl().fetch(&url("desktop-2", "/"))?.expect(501)?;
        ensure!(desktop.header("x-gantry-error") == Some("SERVICE_NOT_PROVIDED"), "{desktop:?}");
        Ok(())
    });
}
