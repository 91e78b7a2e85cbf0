//! Arguments and local variables of the frames of a stack.

use colinux_driver::machine::Machine;
use colinux_symbols::btf::Type;
use colinux_symbols::dwarf::{CallerState, FrameRegisters, FrameState, TypeName, Variable};
use colinux_symbols::unwind::{Method, Stack, StackFrame, switched_registers};
use colinux_symbols::{DebugImage, Gva, Resolver, Slide, TypeId};

use super::print::Printer;
use crate::names::Names;

/// A variable as it is shown.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) name: String,
    pub(crate) is_argument: bool,
    /// None where it is not to be had.
    pub(crate) value: Option<String>,
    /// A structure or array.
    pub(crate) is_composite: bool,
}

impl Shown {
    pub(crate) fn value(&self) -> &str {
        self.value.as_deref().unwrap_or("<optimized out>")
    }
}

/// The variables of one frame of the stack: of each frame of the source, innermost first.
pub(crate) type FrameVariables = Vec<Vec<Shown>>;

/// Of each frame of a stack; empty where no debug image tells. `first` are the registers of its
/// innermost frame, where it is the running task's.
pub(crate) fn of_stack(
    stack: &Stack,
    first: Option<FrameRegisters>,
    names: &Names,
    resolver: &Resolver,
    machine: &mut Machine,
) -> Vec<FrameVariables> {
    let Ok(mut printer) = Printer::new(names, resolver, machine) else {
        return Vec::new();
    };
    if first.is_none() {
        printer.leave_out_program();
    }
    let kernel = names
        .image_path()
        .and_then(|path| DebugImage::open(path, None).ok());
    let memory = printer.memory();
    let states = states(stack, first, kernel.as_ref(), resolver, &printer);
    let frames = stack.frames.iter().zip(&states).enumerate();
    let shown = frames.map(|(at, (frame, state))| {
        let Some(CallerState {
            image,
            registers,
            cfa,
            slide,
            ..
        }) = state
        else {
            return Vec::new();
        };
        let callers = states.iter().zip(&stack.frames).skip(at + 1);
        let callers: Vec<_> = callers
            .map(|(state, frame)| {
                state
                    .clone()
                    .filter(|state| is_call(frame) && state.is_sure())
            })
            .collect();
        let state = FrameState {
            registers: *registers,
            cfa: *cfa,
            slide: *slide,
            memory,
            callers: &callers,
        };
        // Damaged debug information is as good as none.
        let found = image.variables(frame.lookup_ip().link(*slide), &state);
        let show = |variables: Vec<Variable>| {
            let shown = variables.into_iter().map(|v| show(v, &printer));
            shown.collect()
        };
        found.unwrap_or_default().into_iter().map(show).collect()
    });
    shown.collect()
}

/// What is known of each frame of a stack; none where nothing describes its code.
fn states<'i>(
    stack: &Stack,
    first: Option<FrameRegisters>,
    kernel: Option<&'i DebugImage>,
    resolver: &'i Resolver,
    printer: &Printer<'_>,
) -> Vec<Option<CallerState<'i>>> {
    let memory = printer.memory();
    let mut all = Vec::new();
    let mut caller = FrameRegisters::default();
    // Below a frame that was guessed everything is.
    let mut is_sure = true;
    for (at, frame) in stack.frames.iter().enumerate() {
        is_sure &= matches!(frame.method, Method::Start | Method::Orc | Method::Saved);
        let mut registers = match (at, first) {
            (0, Some(first)) => first,
            (0, None) => switched_registers(memory, printer.btf(), frame),
            _ if frame.is_return => caller,
            _ => frame.saved_registers(memory).unwrap_or_default(),
        };
        registers.0[FrameRegisters::SP] = Some(frame.sp.0);
        if !is_sure {
            registers = FrameRegisters::default();
        }
        let cfa = stack
            .frames
            .get(at + 1)
            .filter(|next| is_sure && is_call(next))
            .map(|next| next.sp.0);
        let Some((image, slide)) = image(frame, kernel, resolver) else {
            caller = FrameRegisters::default();
            all.push(None);
            continue;
        };
        let state = FrameState {
            registers,
            cfa,
            slide,
            memory,
            callers: &[],
        };
        caller = image.caller_registers(frame.lookup_ip().link(slide), &state);
        all.push(Some(CallerState {
            image,
            returns_to: frame.ip.link(slide),
            registers,
            cfa,
            slide,
        }));
    }
    all
}

/// Its stack pointer is where the call was made from.
fn is_call(frame: &StackFrame) -> bool {
    frame.method == Method::Orc && frame.is_return
}

/// What describes the code of a frame, and how far it was moved.
fn image<'i>(
    frame: &StackFrame,
    kernel: Option<&'i DebugImage>,
    resolver: &'i Resolver,
) -> Option<(&'i DebugImage, Slide)> {
    let Gva(ip) = frame.lookup_ip();
    if frame.is_user {
        return None;
    }
    if resolver.modules().iter().any(|m| m.contains(Gva(ip))) {
        return Some((resolver.module_image(Gva(ip))?, Slide::NONE));
    }
    Some((kernel?, resolver.slide()))
}

fn show(variable: Variable, printer: &Printer<'_>) -> Shown {
    let btf = printer.btf();
    let Variable {
        name,
        is_argument,
        ty,
        bytes,
    } = variable;
    let id = ty.as_ref().and_then(|ty| ty.find(btf));
    let kind = id.and_then(|id| btf.get(btf.strip(id)));
    let number = |bytes: &[u8]| {
        let mut wide = [0; 8];
        let low = wide.get_mut(..bytes.len())?;
        low.copy_from_slice(bytes);
        Some(u64::from_le_bytes(wide))
    };
    let text = |bytes: Vec<u8>| match (&ty, id) {
        (Some(TypeName::Pointer(to)), _) => {
            let to = to.find(btf).unwrap_or(TypeId(0));
            btf.print_pointer(to, number(&bytes).unwrap_or_default(), printer)
        }
        // Another type of that name would have another size, nearly always.
        (_, Some(id)) if btf.size_of(id) == Some(bytes.len() as u64) => {
            btf.print(id, &bytes, printer)
        }
        _ => number(&bytes).map_or_else(
            || "<a type that the kernel's table does not have>".to_owned(),
            |number| format!("{number:#x}"),
        ),
    };
    Shown {
        name,
        is_argument,
        value: bytes.map(text),
        is_composite: matches!(kind, Some(Type::Composite(_) | Type::Array(..))),
    }
}
