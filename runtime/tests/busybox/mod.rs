//! The image that tests start containers from: one program and an init of a few lines.

use std::path::Path;

/// How many processes the init is, once it has begun to sleep.
pub(crate) const INIT_PIDS: u64 = 2;

/// An init that ends when it is asked to, unless `STUBBORN` is set.
const INIT: &str =
    "#!/bin/sh\n[ $STUBBORN ] || trap 'exit 0' TERM\nwhile :; do sleep 1000 & wait $!; done\n";

/// A program that `busybox` may lack.
const PRINTENV: &str = "#!/bin/sh\neval \"echo \\\"\\$$1\\\"\"\n";

/// A program that opens `/dev/kvm`, asks for the version of its interface, and ends with that, or with the
/// negated number of the error. Nothing else on the image can call `ioctl`. In C:
/// `int f = open("/dev/kvm", O_RDWR); exit(f < 0 ? f : ioctl(f, KVM_GET_API_VERSION, 0));`
#[cfg(target_arch = "x86_64")]
fn kvm_version() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: usize = 64 + 56;
    let code: &[&[u8]] = &[
        b"\x48\x8d\x3d\x29\0\0\0", // lea rdi, [rip + 0x29]: the path
        b"\xbe\x02\0\0\0",         // mov esi, O_RDWR
        b"\xb8\x02\0\0\0",         // mov eax, open
        b"\x0f\x05",               // syscall
        b"\x85\xc0",               // test eax, eax
        b"\x78\x10",               // js the end
        b"\x89\xc7",               // mov edi, eax
        b"\xbe\0\xae\0\0",         // mov esi, KVM_GET_API_VERSION
        b"\x31\xd2",               // xor edx, edx
        b"\xb8\x10\0\0\0",         // mov eax, ioctl
        b"\x0f\x05",               // syscall
        b"\x89\xc7",               // the end: mov edi, eax
        b"\xb8\x3c\0\0\0",         // mov eax, exit
        b"\x0f\x05",               // syscall
        b"/dev/kvm\0",
    ];
    let code = code.concat();
    let size = (HEADERS + code.len()) as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    elf.extend((BASE + HEADERS as u64).to_le_bytes()); // where it begins
    elf.extend([64, 0].map(u64::to_le_bytes).concat()); // program headers, no sections
    elf.extend(b"\0\0\0\0\x40\0\x38\0\x01\0\x40\0\0\0\0\0");
    elf.extend(b"\x01\0\0\0\x05\0\0\0"); // to be loaded, readable and executable
    elf.extend([0, BASE, BASE, size, size, 0x1000].map(u64::to_le_bytes).concat());
    elf.extend(code);
    elf
}

/// The same as far as a shell can: it ends with the version without asking for it.
#[cfg(not(target_arch = "x86_64"))]
fn kvm_version() -> Vec<u8> {
    b"#!/bin/sh\n[ -e /dev/kvm ] || exit 254\nexec 3<>/dev/kvm && exit 12\n".to_vec()
}

/// What the tests use of `busybox`.
const APPLETS: &[&str] = &[
    "arping", "cat", "chmod", "dd", "echo", "env", "false", "find", "grep", "head", "hostname",
    "httpd", "id", "kill", "ln", "mkdir", "mknod", "ip", "ls", "mount", "nc", "ps", "seq", "stat",
    "test", "touch", "umount", "unshare", "ping", "pwd", "readlink", "rm", "sh", "sleep", "stty",
    "tee", "true", "uname", "wget",
];

/// A root file system of one program.
pub(crate) fn tarball(path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(path.parent().unwrap())?;
    let mut tar = tar::Builder::new(std::fs::File::create(path)?);
    let mut header = tar::Header::new_ustar();
    let mut add = |name: &str, mode: u32, kind: tar::EntryType, bytes: &[u8]| {
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        if kind == tar::EntryType::Symlink {
            header.set_size(0);
            tar.append_link(&mut header, name, String::from_utf8_lossy(bytes).as_ref())
        } else {
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, bytes)
        }
    };
    for dir in ["bin", "sbin", "etc", "proc", "sys", "dev", "run", "root", "ramdisk"] {
        add(dir, 0o755, tar::EntryType::Directory, b"")?;
    }
    add("tmp", 0o1777, tar::EntryType::Directory, b"")?;
    add("bin/busybox", 0o755, tar::EntryType::Regular, &std::fs::read("/bin/busybox")?)?;
    for applet in APPLETS {
        add(&format!("bin/{applet}"), 0o777, tar::EntryType::Symlink, b"busybox")?;
    }
    add("sbin/init", 0o755, tar::EntryType::Regular, INIT.as_bytes())?;
    add("bin/kvm-version", 0o755, tar::EntryType::Regular, &kvm_version())?;
    add("bin/printenv", 0o755, tar::EntryType::Regular, PRINTENV.as_bytes())?;
    add("etc/passwd", 0o644, tar::EntryType::Regular, b"root:x:0:0::/root:/bin/sh\n")?;
    tar.into_inner().map(drop)
}
