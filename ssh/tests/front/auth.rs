//! Which keys get in, by which algorithms, and in which order they may be offered.

use std::{path::PathBuf, process::Output, sync::Arc};

use gantry_ssh::DoorState;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
};

use crate::{
    bed::{Bed, door, fingerprint, key, output},
    foreign::Script,
    forwards::Agent,
};

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_all_types_get_in() {
    let bed = Bed::new().await;
    for (name, args) in [
        ("p256", ["-t", "ecdsa", "-b", "256"]),
        ("p384", ["-t", "ecdsa", "-b", "384"]),
        ("p521", ["-t", "ecdsa", "-b", "521"]),
        ("r2048", ["-t", "rsa", "-b", "2048"]),
    ] {
        let key = key(bed.dir.path(), name, &args);
        let ssh = || bed.client("ssh", "-p", &bed.path(name), &["root@127.0.0.1", "true"]);
        assert!(!output(ssh()).await.status.success(), "{name}");
        bed.doors.set(key, Some(door(DoorState::Open)));
        assert!(output(ssh()).await.status.success(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_get_in_and_weak_signatures_other_methods_and_certificates_do_not() {
    let bed = Bed::new().await;
    let rsa = key(bed.dir.path(), "rsa", &["-t", "rsa", "-b", "2048", "-m", "PEM"]);
    bed.doors.set(rsa, Some(door(DoorState::Open)));
    key(bed.dir.path(), "authority", &["-t", "ed25519"]);
    std::fs::copy(bed.path("id.pub"), bed.path("old.pub")).unwrap();
    for (name, validity) in [("id.pub", "always:forever"), ("old.pub", "20010101:20020101")] {
        let mut sign = tokio::process::Command::new("ssh-keygen");
        sign.args(["-q", "-I", "somebody", "-n", "root", "-V", validity, "-s"]);
        sign.arg(bed.path("authority")).arg(bed.path(name));
        assert!(output(sign).await.status.success());
    }
    let Some(mut script) = Script::start(&bed, "keys.py", &[]) else { return };
    for want in ["sk-ed25519 in", "sk-ecdsa in", "forged refused"] {
        let line = script.line().await;
        bed.doors.set(fingerprint(&line), Some(door(DoorState::Open)));
        script.tell("known").await;
        script.says(want).await;
    }
    for want in [
        "ssh-rsa refused",
        "rsa-sha2-256 in",
        "rsa-sha2-512 in",
        "none refused publickey",
        "password refused publickey",
        "interactive refused publickey",
        "certificate refused",
        "expired certificate refused",
        "key in",
    ] {
        script.says(want).await;
    }
    script.end().await;
}

/// A login with these keys of an agent, and then the right one.
async fn after(bed: &Bed, wrong: &[PathBuf]) -> Output {
    let agent = Agent::new(bed, &format!("agent{}", wrong.len())).await;
    agent.add(wrong).await;
    let args = ["-oIdentitiesOnly=no", "root@127.0.0.1", "echo ok"];
    let mut ssh = tokio::process::Command::new("ssh");
    let known = format!("-oUserKnownHostsFile={}", bed.path("known_hosts").display());
    ssh.args(["-F", "none", "-oBatchMode=yes", &known, "-p", &bed.address.port().to_string()]);
    ssh.arg("-i").arg(bed.path("id")).args(args).env("SSH_AUTH_SOCK", &agent.socket);
    output(ssh).await
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_keys_may_be_offered() {
    let bed = Bed::new().await;
    let wrong: Vec<PathBuf> = (0..31)
        .map(|n| {
            let name = format!("wrong{n}");
            bed.key(&name, "ed25519");
            bed.path(&name)
        })
        .collect();
    for count in [12, 29] {
        let ended = after(&bed, &wrong[..count]).await;
        assert_eq!(ended.stdout, b"ok\n", "{}", String::from_utf8_lossy(&ended.stderr));
    }
    let ended = after(&bed, &wrong).await;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains("Too many authentication"), "{said}");
    assert_eq!(ended.status.code(), Some(255));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_goes_between_offer_and_signature_opens_nothing() {
    let bed = Bed::new().await;
    let real = Agent::new(&bed, "agent").await;
    real.add(&[bed.path("id")]).await;
    let between = bed.path("between");
    let listener = UnixListener::bind(&between).unwrap();
    let (doors, id, agent) = (Arc::clone(&bed.doors), bed.id, real.socket.clone());
    // An agent that takes the key away when it is asked to sign.
    let asked = tokio::spawn(async move {
        const SIGN: u8 = 13;
        let mut signed = 0;
        while let Ok((mut client, _)) = listener.accept().await {
            let mut agent = UnixStream::connect(&agent).await.unwrap();
            while let Ok(len) = client.read_u32().await {
                let mut request = vec![0; len as usize];
                client.read_exact(&mut request).await.unwrap();
                if request[0] == SIGN {
                    doors.set(id, None);
                    signed += 1;
                }
                agent.write_u32(len).await.unwrap();
                agent.write_all(&request).await.unwrap();
                let mut answer = vec![0; agent.read_u32().await.unwrap() as usize];
                agent.read_exact(&mut answer).await.unwrap();
                client.write_u32(u32::try_from(answer.len()).unwrap()).await.unwrap();
                client.write_all(&answer).await.unwrap();
            }
            if signed > 0 {
                break;
            }
        }
        signed
    });
    let key = bed.path("id.pub");
    let mut ssh = bed.client("ssh", "-p", &key, &["root@127.0.0.1", "echo ok"]);
    ssh.env("SSH_AUTH_SOCK", &between);
    let ended = output(ssh).await;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains("Permission denied (publickey)"), "{said}");
    assert!(ended.stdout.is_empty());
    assert_eq!(asked.await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_narrows_the_choice_to_a_container() {
    let bed = Bed::new().await;
    let container = door(DoorState::Open).container;
    let as_user = |user: &str| {
        let args = [&format!("{user}@127.0.0.1"), "id -un"];
        output(bed.client("ssh", "-p", &bed.path("id"), &args.map(|arg| arg as &str)))
    };
    let right = as_user(&format!("root+{container}")).await;
    assert_eq!(right.stdout, b"root\n");
    for wrong in ["root+0123456789abcdef01234568", "root+", "root+one", "+"] {
        assert_eq!(as_user(wrong).await.status.code(), Some(255), "{wrong}");
    }
}
