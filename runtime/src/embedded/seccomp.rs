//! The system calls that a container may use.
//!
//! A list of what is allowed, because kernels grow: what is not named answers "operation not
//! permitted". Containers are whole systems with their own user namespace, so mounting and making namespaces is
//! allowed, as in every system container. Left out on purpose: kernel modules and kexec, clocks,
//! swap, accounting, raw ports, BPF, performance events, `userfaultfd`, `io_uring`, kernel keyrings
//! (not separated by namespaces), opening by file handle, the kernel's log, and the multiplexer
//! `socketcall`, which would evade the rule on socket families.

use oci_spec::{
    OciSpecError,
    runtime::{
        Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
        LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
    },
};

const FILES: &str = "
    access chdir chmod chown chown32 chroot close close_range copy_file_range creat dup dup2 dup3
    faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown
    fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr
    fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents
    getdents64 getxattr getxattrat ioctl lchown lchown32 lgetxattr link linkat listxattr listxattrat
    llistxattr lremovexattr _llseek lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat
    name_to_handle_at newfstatat oldfstat oldlstat oldstat open openat openat2 pread64 preadv
    preadv2 pwrite64 pwritev pwritev2 quotactl quotactl_fd read readahead readlink readlinkat readv
    removexattr removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr
    setxattrat splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range
    sync_file_range2 syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat
    utimensat_time64 utimes vmsplice write writev cachestat file_getattr file_setattr";

const MOUNTS: &str = "
    fsconfig fsmount fsopen fspick listmount mount mount_setattr move_mount open_tree
    open_tree_attr pivot_root statmount umount umount2";

const MEMORY: &str = "
    brk get_mempolicy madvise map_shadow_stack mbind membarrier memfd_create memfd_secret
    migrate_pages mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock
    munlockall munmap pkey_alloc pkey_free pkey_mprotect process_madvise process_mrelease
    remap_file_pages set_mempolicy set_mempolicy_home_node";

const PROCESSES: &str = "
    arch_prctl capget capset clone clone3 execve execveat exit exit_group fork get_robust_list
    get_thread_area getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32
    getpgid getpgrp getpid getppid getpriority getresgid getresgid32 getresuid getresuid32
    getrlimit getrusage getsid gettid getuid getuid32 ioprio_get ioprio_set kcmp kill landlock_add_rule
    landlock_create_ruleset landlock_restrict_self lsm_get_self_attr lsm_list_modules
    lsm_set_self_attr modify_ldt nice pidfd_getfd pidfd_open pidfd_send_signal prctl prlimit64
    process_vm_readv process_vm_writev ptrace rseq sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
    sched_yield seccomp set_robust_list set_thread_area set_tid_address setdomainname setfsgid
    setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 sethostname setns setpgid
    setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32
    setrlimit setsid setuid setuid32 sysinfo tgkill times tkill ugetrlimit uname unshare uretprobe
    vfork vhangup wait4 waitid waitpid reboot getcpu";

const SIGNALS_AND_TIME: &str = "
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep pause
    restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo setitimer sigaction
    sigaltstack signal signalfd signalfd4 sigpending sigprocmask sigreturn sigsuspend time
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64";

const WAITING_AND_QUEUES: &str = "
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 fanotify_init fanotify_mark futex futex_requeue futex_time64
    futex_wait futex_waitv futex_wake getrandom inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup
    io_submit ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
    mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd _newselect pipe pipe2
    poll ppoll ppoll_time64 pselect6 pselect6_time64 select semctl semget semop semtimedop
    semtimedop_time64 shmat shmctl shmdt shmget";

const SOCKETS: &str = "
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg
    recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair";

const ARM: &str = "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls";

/// Kernel crypto and host-to-guest sockets; neither knows of namespaces.
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// Execution domains that change no behaviour of the kernel that others could feel: Linux, with
/// 32 bits, old `uname`, both, and the question which one it is.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The filter, for the OCI configuration.
pub(super) fn profile() -> Result<LinuxSeccomp, OciSpecError> {
    let lists =
        [FILES, MOUNTS, MEMORY, PROCESSES, SIGNALS_AND_TIME, WAITING_AND_QUEUES, SOCKETS, ARM];
    let names: Vec<&str> = lists.iter().flat_map(|list| list.split_whitespace()).collect();
    let mut syscalls = vec![allow(&names, &[])?];
    for persona in PERSONALITIES {
        syscalls.push(allow(&["personality"], &[arg(LinuxSeccompOperator::ScmpCmpEq, persona)?])?);
    }
    // Filters know no "neither of two values" for one argument, so the gaps are spelt out.
    for (operator, family) in [
        (LinuxSeccompOperator::ScmpCmpLt, AF_ALG),
        (LinuxSeccompOperator::ScmpCmpEq, AF_ALG + 1),
        (LinuxSeccompOperator::ScmpCmpGt, AF_VSOCK),
    ] {
        syscalls.push(allow(&["socket"], &[arg(operator, family)?])?);
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(1_u32)
        .architectures(architectures())
        .syscalls(syscalls)
        .build()
}

/// The processor's own calls and those of its 32-bit sibling.
fn architectures() -> Vec<Arch> {
    if cfg!(target_arch = "x86_64") {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86]
    } else if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    } else {
        vec![Arch::ScmpArchNative]
    }
}

fn allow(names: &[&str], args: &[LinuxSeccompArg]) -> Result<LinuxSyscall, OciSpecError> {
    let syscall = LinuxSyscallBuilder::default()
        .names(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        .action(LinuxSeccompAction::ScmpActAllow);
    if args.is_empty() { syscall.build() } else { syscall.args(args.to_vec()).build() }
}

fn arg(op: LinuxSeccompOperator, value: u64) -> Result<LinuxSeccompArg, OciSpecError> {
    LinuxSeccompArgBuilder::default().index(0_usize).value(value).op(op).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_beyond_the_container_is_not_allowed() {
        let profile = profile().unwrap();
        let syscalls = profile.syscalls().as_ref().unwrap();
        let free: Vec<&str> = syscalls
            .iter()
            .filter(|syscall| syscall.args().is_none())
            .flat_map(|syscall| syscall.names().iter().map(String::as_str))
            .collect();
        for name in [
            "init_module",
            "finit_module",
            "delete_module",
            "kexec_load",
            "kexec_file_load",
            "bpf",
            "perf_event_open",
            "userfaultfd",
            "io_uring_setup",
            "open_by_handle_at",
            "keyctl",
            "add_key",
            "request_key",
            "settimeofday",
            "clock_settime",
            "swapon",
            "swapoff",
            "acct",
            "syslog",
            "iopl",
            "ioperm",
            "socketcall",
            "socket",
            "personality",
            "lookup_dcookie",
        ] {
            assert!(!free.contains(&name), "{name}");
        }
        let mut sorted = free.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), free.len(), "each name once");
    }
}
