//! Modes of terminals by their opcodes, RFC 4254 §8 and RFC 8160.

use rustix::termios::{
    ControlModes, InputModes, LocalModes, OutputModes, SpecialCodeIndex, Termios,
};

/// What a client sends for a special character that it has not.
const DISABLED: u32 = 255;

/// Puts a mode into the attributes; one that Linux does not have is left out.
pub(super) fn apply(termios: &mut Termios, opcode: u8, value: u32) {
    let on = value != 0;
    if let Some(index) = special_code(opcode) {
        // A character is an octet; what does not fit disables it.
        let code = u8::try_from(value).ok().filter(|_| value != DISABLED).unwrap_or(0);
        termios.special_codes[index] = code;
    } else if let Some(flag) = input(opcode) {
        termios.input_modes.set(flag, on);
    } else if let Some(flag) = local(opcode) {
        termios.local_modes.set(flag, on);
    } else if let Some(flag) = output(opcode) {
        termios.output_modes.set(flag, on);
    } else if let Some(flag) = control(opcode) {
        termios.control_modes.set(flag, on);
    } else {
        speed(termios, opcode, value);
    }
}

fn special_code(opcode: u8) -> Option<SpecialCodeIndex> {
    Some(match opcode {
        1 => SpecialCodeIndex::VINTR,
        2 => SpecialCodeIndex::VQUIT,
        3 => SpecialCodeIndex::VERASE,
        4 => SpecialCodeIndex::VKILL,
        5 => SpecialCodeIndex::VEOF,
        6 => SpecialCodeIndex::VEOL,
        7 => SpecialCodeIndex::VEOL2,
        8 => SpecialCodeIndex::VSTART,
        9 => SpecialCodeIndex::VSTOP,
        10 => SpecialCodeIndex::VSUSP,
        12 => SpecialCodeIndex::VREPRINT,
        13 => SpecialCodeIndex::VWERASE,
        14 => SpecialCodeIndex::VLNEXT,
        16 => SpecialCodeIndex::VSWTC,
        18 => SpecialCodeIndex::VDISCARD,
        _ => return None,
    })
}

fn input(opcode: u8) -> Option<InputModes> {
    Some(match opcode {
        30 => InputModes::IGNPAR,
        31 => InputModes::PARMRK,
        32 => InputModes::INPCK,
        33 => InputModes::ISTRIP,
        34 => InputModes::INLCR,
        35 => InputModes::IGNCR,
        36 => InputModes::ICRNL,
        37 => InputModes::IUCLC,
        38 => InputModes::IXON,
        39 => InputModes::IXANY,
        40 => InputModes::IXOFF,
        41 => InputModes::IMAXBEL,
        42 => InputModes::IUTF8,
        _ => return None,
    })
}

fn local(opcode: u8) -> Option<LocalModes> {
    Some(match opcode {
        50 => LocalModes::ISIG,
        51 => LocalModes::ICANON,
        52 => LocalModes::XCASE,
        53 => LocalModes::ECHO,
        54 => LocalModes::ECHOE,
        55 => LocalModes::ECHOK,
        56 => LocalModes::ECHONL,
        57 => LocalModes::NOFLSH,
        58 => LocalModes::TOSTOP,
        59 => LocalModes::IEXTEN,
        60 => LocalModes::ECHOCTL,
        61 => LocalModes::ECHOKE,
        62 => LocalModes::PENDIN,
        _ => return None,
    })
}

fn output(opcode: u8) -> Option<OutputModes> {
    Some(match opcode {
        70 => OutputModes::OPOST,
        71 => OutputModes::OLCUC,
        72 => OutputModes::ONLCR,
        73 => OutputModes::OCRNL,
        74 => OutputModes::ONOCR,
        75 => OutputModes::ONLRET,
        _ => return None,
    })
}

fn control(opcode: u8) -> Option<ControlModes> {
    Some(match opcode {
        90 => ControlModes::CS7,
        91 => ControlModes::CS8,
        92 => ControlModes::PARENB,
        93 => ControlModes::PARODD,
        _ => return None,
    })
}

/// A speed; 0 would mean to hang up. Linux takes any other, so that there is nothing to refuse.
fn speed(termios: &mut Termios, opcode: u8, value: u32) {
    let set = match opcode {
        128 if value != 0 => termios.set_input_speed(value),
        129 if value != 0 => termios.set_output_speed(value),
        _ => return,
    };
    if let Err(error) = set {
        super::say(&format!("gantry-session: a terminal's speed of {value}: {error}"));
    }
}
