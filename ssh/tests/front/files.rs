//! Tools for files, at the front and at sshd: what they say, and what lies there afterwards.
//!
//! Debian's curl is not among them: its libssh2 knows no key exchange by elliptic curves and no host key
//! but RSA, neither of which the front has to offer.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use crate::{
    bed::{output, text},
    sshd::Beside,
};

/// What all scripts begin with: `$HOST` and `$CONFIG` name the server, `$THERE` is a directory there,
/// of the name `$NAME` in the user's home, and the current directory is one of the client's.
const HEAD: &str = "set -eu
SSH=\"ssh -F $CONFIG\"
# What a directory holds, but for times where they are not kept.
listed() { (cd \"$1\" && find . -printf '%P %y %m %s %l\\n' | LC_ALL=C sort && find . -type f -exec cksum {} + | LC_ALL=C sort -k3); }
with_times() { (cd \"$1\" && find . ! -type l -printf '%P %Ts\\n' | LC_ALL=C sort); }
mkdir -p tree/deep/er 'tree/with space' tree/empty
head -c 300000 /dev/zero | tr '\\0' x >tree/big
printf 'a\\0b\\377' >tree/deep/octets
echo quoted >\"tree/with space/it's \\\"so\\\" \\$(x)\"
echo ü >tree/deep/er/ü
: >tree/none
chmod 4750 tree/deep/octets; chmod 0400 tree/none; chmod 0700 tree/deep
touch -d '2001-02-03 04:05:06' tree/big tree/deep/octets tree/none tree/deep/er/ü
ln -s deep/octets tree/link
";

/// Runs a script with a server, in a directory of its own; what it said.
async fn script(beside: &Beside, host: &str, line: &str) -> String {
    let client = beside.bed.path(&format!("client-{host}"));
    let there = beside.home.path().join(host);
    for directory in [&client, &there] {
        std::fs::create_dir_all(directory).unwrap();
    }
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut bash = Command::new("bash");
    bash.arg("-c").arg([HEAD, line].concat()).current_dir(client).stdin(Stdio::null());
    bash.env("HOST", host).env("CONFIG", beside.config()).env("THERE", &there);
    bash.env("NAME", format!("{}/{host}", name(beside.home.path())));
    bash.env("DIR", beside.bed.path("")).env("PORT", port(beside, host));
    bash.env("LC_ALL", "C.UTF-8").env("GIT_CONFIG_GLOBAL", "/dev/null").kill_on_drop(true);
    let said = text(bash).await;
    // The one thing that has to differ.
    said.replace(&there.display().to_string(), "THERE")
}

fn port(beside: &Beside, host: &str) -> String {
    if host == "sshd" { beside.sshd.port() } else { beside.bed.address.port() }.to_string()
}

/// Runs it with both; they must say the same, and what they say ends with `done`.
async fn both(line: &str) -> String {
    let beside = Beside::new().await;
    let (ours, theirs) =
        tokio::join!(script(&beside, "gantry", line), script(&beside, "sshd", line));
    assert_eq!(ours, theirs);
    assert!(ours.ends_with("done\n"), "{ours}");
    ours
}

#[tokio::test(flavor = "multi_thread")]
async fn scp_copies_both_ways_by_both_of_its_protocols() {
    both(
        "for how in -s -O; do
            scp -F $CONFIG -q $how -rp tree $HOST:$THERE/kept$how
            with_times $THERE/kept$how | grep -v ^link | diff - <(with_times tree)
            scp -F $CONFIG -q $how -r tree $HOST:$THERE/plain$how
            listed $THERE/kept$how; listed $THERE/plain$how
            scp -F $CONFIG -q $how -rp $HOST:$THERE/kept$how back$how
            diff -r tree back$how
            with_times back$how | grep -v ^link | diff - <(with_times tree)
            scp -F $CONFIG -q $how tree/big \"$HOST:~/$NAME/home$how\"
            scp -F $CONFIG -q $how tree/big $HOST:$NAME/relative$how
            cmp tree/big $THERE/home$how; cmp tree/big $THERE/relative$how
            scp -F $CONFIG -q $how \"tree/with space/it's \\\"so\\\" \\$(x)\" tree/deep/er/ü $HOST:$THERE/
            scp -F $CONFIG -q $how \"$HOST:$THERE/plain$how/*g\" glob$how
            cmp tree/big glob$how
            if scp -F $CONFIG $how $HOST:$THERE/missing . 2>missing$how; then echo found; fi
            if scp -F $CONFIG $how tree/big $HOST:$THERE/no/such 2>missing$how; then echo found; fi
            grep -c 'o such file' missing$how
        done
        ls $THERE
        echo done",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_does_all_that_it_offers() {
    both(
        "cat >batch <<END
cd $THERE
pwd
put tree/big
put -p tree/deep/octets kept
put -R tree whole
mkdir made
rename big made/big
-rename none nowhere
ln made/big hard
ln -s made/big soft
symlink none dangling
chmod 0604 hard
ls -1
ls -1 made
stat hard
-rm none
-rmdir made
-cd none
-ls none
df -i
rm soft
rmdir whole/empty
get -R whole back
get made/big
lpwd
END
        sed -i '/^lpwd\\|^stat\\|^df/d' batch
        sftp -q -F $CONFIG -b batch $HOST 2>&1
        listed $THERE; listed back
        stat -c '%h %a' $THERE/hard
        sftp -q -F $CONFIG -b <(echo \"df $THERE\") $HOST | awk 'NR == 2 { print ($1 > 0), ($3 > 0) }'
        # What was broken off goes on.
        head -c 100000 tree/big >$THERE/part; head -c 100000 tree/big >part
        cp tree/big $THERE/full
        sftp -q -F $CONFIG -b <(printf 'reput tree/big %s/part\\nreget %s/full part\\n' $THERE $THERE) $HOST
        cmp tree/big $THERE/part; cmp tree/big part
        # Past 4 GiB, where only the end is carried.
        truncate -s 5000000000 $THERE/far; echo end >>$THERE/far
        truncate -s 4999990000 far
        sftp -q -F $CONFIG -b <(echo \"reget $THERE/far far\") $HOST
        stat -c %s far; tail -c 4 far
        echo more >>far
        sftp -q -F $CONFIG -b <(echo \"reput far $THERE/far\") $HOST
        stat -c %s $THERE/far; tail -c 9 $THERE/far
        echo done",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_ten_thousand_is_listed() {
    let said = both(
        "mkdir $THERE/many; (cd $THERE/many && seq -f 'entry-%05g' 10000 | xargs touch -d @1000000000)
        for how in -1 -l; do
            sftp -q -F $CONFIG -b <(printf 'cd %s\nls %s many\n' $THERE $how) $HOST >list
            wc -l <list; grep -v ^sftp list | cksum
        done
        echo done",
    )
    .await;
    assert!(said.contains("10002\n"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rsync_carries_a_tree_and_then_what_changed() {
    both(
        "go() { rsync -a --no-whole-file -e \"$SSH\" \"$@\"; }
        go tree/ $HOST:$THERE/tree/
        listed $THERE/tree; with_times $THERE/tree | diff - <(with_times tree)
        printf changed | dd of=tree/big bs=1 seek=150000 conv=notrunc status=none
        rm tree/none; echo new >tree/new
        go --delete -i --stats tree/ $HOST:$THERE/tree/ >out
        grep '^[<>*]' out
        # Not all of it, but a block.
        awk '/^Literal data/ { gsub(\",\", \"\"); print ($3 > 0 && $3 < 20000) }
             /^Matched data/ { gsub(\",\", \"\"); print ($3 > 250000) }' out
        listed $THERE/tree
        go -n -i $HOST:$THERE/tree/ back/ | wc -l
        go $HOST:$THERE/tree/ back/; diff -r tree back; with_times back | diff - <(with_times tree)
        echo done",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn git_clones_and_pushes() {
    both(
        "git init -q --bare -b main $THERE/there.git
        export GIT_SSH_COMMAND=$SSH GIT_AUTHOR_DATE='1000000000 +0000' GIT_COMMITTER_DATE='1000000000 +0000'
        git clone -q $HOST:$THERE/there.git work 2>/dev/null
        cd work; git config user.name n; git config user.email e@x; git checkout -q -b main
        cp -r ../tree/big ../tree/deep .; git add .; git commit -q -m one
        git push -q origin main 2>&1
        git -C $THERE/there.git log --format=%H main
        cd ..; git clone -q ssh://$HOST$THERE/there.git other; diff -r work/deep other/deep
        cd other; echo more >more; git add .; git -c user.name=n -c user.email=e@x commit -q -m two
        git push -q 2>&1; git -C $THERE/there.git log --format=%H main
        cd ../work; git pull -q origin main; cat more
        git ls-remote $HOST:$THERE/none 2>/dev/null || echo none
        echo done",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lftp_mirrors() {
    both(
        "go() { lftp -c \"set sftp:connect-program '$SSH -a -x'; open sftp://$HOST; $1\"; }
        go \"mirror -R tree $THERE/tree; mirror $THERE/tree back; cat $THERE/tree/deep/er/ü\"
        listed $THERE/tree; diff -r tree back
        echo done",
    )
    .await;
}

/// Whether the kernel lets a file system of FUSE be mounted here, and why not.
async fn fuse(beside: &Beside) -> Result<(), String> {
    if !Path::new("/dev/fuse").exists() {
        return Err("there is no /dev/fuse".to_owned());
    }
    // By sshd, so that a mistake of the front is no reason.
    let at = beside.bed.path("probe");
    std::fs::create_dir(&at).unwrap();
    let mut mount = Command::new("sshfs");
    mount.arg("-F").arg(beside.config()).arg("sshd:/").arg(&at);
    let mounted = output(mount).await;
    if !mounted.status.success() {
        return Err(String::from_utf8_lossy(&mounted.stderr).into_owned());
    }
    unmount(at).await;
    Ok(())
}

async fn unmount(at: PathBuf) {
    let mut unmount = Command::new("fusermount3");
    text({
        unmount.arg("-u").arg(at);
        unmount
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sshfs_is_a_file_system() {
    let beside = Beside::new().await;
    if let Err(why) = fuse(&beside).await {
        eprintln!("not run: nothing can be mounted here: {why}");
        return;
    }
    drop(beside);
    both(
        "mkdir at; sshfs -F $CONFIG $HOST:$THERE at
        trap 'fusermount3 -u at' EXIT
        cp -r tree at/tree; listed $THERE/tree
        diff -r tree at/tree
        mv at/tree/big at/bigger; ln -s bigger at/link; cat at/link | cksum
        echo more >>at/bigger; tail -c 5 $THERE/bigger
        truncate -s 100 at/bigger; stat -c %s $THERE/bigger
        rm -r at/tree; ls at; df at | tail -n 1 | awk '{ print ($2 > 0) }'
        echo done",
    )
    .await;
}
