//! What a function was called with, by what its caller says of the call (DWARF 5, sections 2.5.1.7
//! and 3.4; before DWARF 5 the same in GNU's own words).

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, OnceLock, PoisonError};

use gimli::{
    AttributeValue, DebugInfoOffset, DebuggingInformationEntry, DwAt, DwTag, Dwarf, Expression,
    Location, Operation, Register, Unit, UnitOffset, Value,
};

use super::locate::{CallerState, Locator};
use super::variables::{attribute, covers};
use super::{DebugImage, FrameState, Slice};
use crate::addr::LinkAddr;
use crate::image::Image;

type Entry<'d> = DebuggingInformationEntry<Slice<'d>>;

/// What is asked for of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// What a register held.
    Register(Register),
    /// What was given for the parameter that stands here in the unit.
    Parameter(UnitOffset),
}

/// A function that may be the one that was called.
struct Callee<'c> {
    /// Its first instruction, as the guest has it.
    entry: u64,
    /// The unit that describes it, for entries that refer to parameters.
    unit: Option<DebugInfoOffset>,
    /// Its name, if others may call it by that.
    global: Option<&'c [u8]>,
}

/// What is known of the calls in an image, once it was asked for.
#[derive(Default)]
pub(super) struct Calls {
    /// Where functions may jump instead of returning, by their first instructions.
    tails: Mutex<HashMap<u64, Option<Vec<u64>>>>,
    /// The functions that the linker knows, by name.
    globals: OnceLock<HashMap<Box<[u8]>, u64>>,
}

/// Functions that a function may reach by jumps from its end; more are not followed.
const MAX_REACHED: usize = 200;
/// Callers whose callers are asked for what they passed on.
const MAX_CALLERS: usize = 16;

/// Each of these stands for the one of DWARF 5 and that of GNU before.
const CALL_SITE: [DwTag; 2] = [gimli::DW_TAG_call_site, gimli::DW_TAG_GNU_call_site];
const PARAMETER: [DwTag; 2] = [
    gimli::DW_TAG_call_site_parameter,
    gimli::DW_TAG_GNU_call_site_parameter,
];
const RETURNS_TO: [DwAt; 2] = [gimli::DW_AT_call_return_pc, gimli::DW_AT_low_pc];
const ORIGIN: [DwAt; 2] = [gimli::DW_AT_call_origin, gimli::DW_AT_abstract_origin];
const TARGET: [DwAt; 2] = [gimli::DW_AT_call_target, gimli::DW_AT_GNU_call_site_target];
const VALUE: [DwAt; 2] = [gimli::DW_AT_call_value, gimli::DW_AT_GNU_call_site_value];
const IS_TAIL: [DwAt; 2] = [gimli::DW_AT_call_tail_call, gimli::DW_AT_GNU_tail_call];
const MEANT: [DwAt; 2] = [gimli::DW_AT_call_parameter, gimli::DW_AT_abstract_origin];
/// One of them says that no jump to another function is left out.
const ALL_TAILS: [DwAt; 4] = [
    gimli::DW_AT_call_all_calls,
    gimli::DW_AT_call_all_tail_calls,
    gimli::DW_AT_GNU_all_call_sites,
    gimli::DW_AT_GNU_all_tail_call_sites,
];

fn either<'d>(entry: &Entry<'d>, names: &[DwAt]) -> Option<AttributeValue<Slice<'d>>> {
    names.iter().find_map(|name| entry.attr_value(*name))
}

fn is_true(entry: &Entry<'_>, names: &[DwAt]) -> bool {
    matches!(either(entry, names), Some(AttributeValue::Flag(true)))
}

impl<'d> Locator<'_, 'd> {
    /// The value of a `DW_OP_entry_value`.
    pub(super) fn entry_value(&self, of: &Expression<Slice<'d>>) -> Option<u64> {
        let mut operations = of.operations(self.unit.encoding());
        let first = operations.next().ok()??;
        match (first, operations.next().ok()?) {
            (Operation::Register { register }, None) => self.passed(Passed::Register(register)),
            _ => None,
        }
    }

    /// What the frame's function was called with; none where it cannot be told for sure.
    pub(super) fn passed(&self, what: Passed) -> Option<u64> {
        let (caller, others) = self.state.callers.split_first()?;
        let caller = caller.as_ref()?;
        let function = self.unit.entry(self.function?).ok()?;
        let entry = entry_of(self.dwarf, self.unit, &function)?;
        // What it was first called with is not what it has now, if it jumped to its own start.
        if self.image.may_come_again(entry) {
            return None;
        }
        let name = global_name(self.dwarf, self.unit, &function);
        let callee = Callee {
            entry: entry.wrapping_add(self.state.slide.0),
            unit: self.unit.debug_info_offset(),
            global: name.map(|name| name.slice()),
        };
        let others = &others[..others.len().min(MAX_CALLERS)];
        let state = FrameState {
            registers: caller.registers,
            cfa: caller.cfa,
            slide: caller.slide,
            memory: self.state.memory,
            callers: others,
        };
        caller.image.at_call(caller, &state, &callee, what)
    }
}

impl DebugImage {
    /// What the call that `caller` stands at passed, if it was one of `callee`.
    fn at_call(
        &self,
        caller: &CallerState<'_>,
        state: &FrameState<'_>,
        callee: &Callee<'_>,
        what: Passed,
    ) -> Option<u64> {
        let LinkAddr(returns_to) = caller.returns_to;
        let inside = returns_to.checked_sub(1)?;
        let dwarf = self.dwarf();
        for offset in self.units_of(inside) {
            let unit = self.unit(&dwarf, offset).ok()?;
            let Some(function) = function_at(&dwarf, &unit, inside) else {
                continue;
            };
            let mut locator = Locator {
                image: self,
                dwarf: &dwarf,
                unit: &unit,
                addr: inside,
                state,
                frame_base: None,
                function: Some(function),
            };
            let base = unit.entry(function).ok()?;
            let base = base.attr_value(gimli::DW_AT_frame_base);
            locator.frame_base = base.and_then(|base| locator.base(base));
            let mut call = None;
            each_call(&unit, function, |site, parameters| {
                let address = either(site, &RETURNS_TO);
                let address = address.and_then(|a| dwarf.attr_address(&unit, a).ok()?);
                if address == Some(returns_to) {
                    call = Some((site.clone(), parameters.to_vec()));
                }
            })?;
            let (site, parameters) = call?;
            locator.calls(&site, callee).then_some(())?;
            let is_it = |parameter: &&Entry<'_>| match what {
                Passed::Register(register) => {
                    let at = parameter.attr_value(gimli::DW_AT_location);
                    at.and_then(|at| in_register(at, &unit)) == Some(register)
                }
                Passed::Parameter(at) => {
                    let same = AttributeValue::UnitRef(at);
                    unit.debug_info_offset() == callee.unit
                        && either(parameter, &MEANT) == Some(same)
                }
            };
            let parameter = parameters.iter().find(is_it)?;
            return locator.computed(either(parameter, &VALUE)?);
        }
        None
    }

    /// Whether a function may come to its own start again by jumps from one function's end to
    /// another's start. What is not known counts as a yes.
    fn may_come_again(&self, entry: u64) -> bool {
        let (mut reached, mut to_do) = (HashSet::new(), vec![entry]);
        while let Some(function) = to_do.pop() {
            let Some(targets) = self.tails_of(function) else {
                return true;
            };
            for target in targets {
                if target == entry || reached.len() > MAX_REACHED {
                    return true;
                }
                if reached.insert(target) {
                    to_do.push(target);
                }
            }
        }
        false
    }

    /// Where a function may jump instead of returning; none if not all of that is known.
    fn tails_of(&self, entry: u64) -> Option<Vec<u64>> {
        let held = || {
            self.calls
                .tails
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(known) = held().get(&entry) {
            return known.clone();
        }
        let found = self.find_tails_of(entry);
        held().insert(entry, found.clone());
        found
    }

    fn find_tails_of(&self, entry: u64) -> Option<Vec<u64>> {
        let dwarf = self.dwarf();
        for offset in self.units_of(entry) {
            let unit = self.unit(&dwarf, offset).ok()?;
            let Some(at) = function_at(&dwarf, &unit, entry) else {
                continue;
            };
            let function = unit.entry(at).ok()?;
            let is_whole = is_true(&function, &ALL_TAILS);
            if entry_of(&dwarf, &unit, &function) != Some(entry) || !is_whole {
                return None;
            }
            let mut targets = Some(Vec::new());
            each_call(&unit, at, |site, _| {
                if is_true(site, &IS_TAIL) {
                    let target = self.target(&dwarf, &unit, site);
                    targets = targets.take().zip(target).map(|(mut all, target)| {
                        all.push(target);
                        all
                    });
                }
            })?;
            return targets;
        }
        None
    }

    /// The function that is called, where the call names it.
    fn target<'d>(
        &self,
        dwarf: &Dwarf<Slice<'d>>,
        unit: &Unit<Slice<'d>>,
        site: &Entry<'d>,
    ) -> Option<u64> {
        let AttributeValue::UnitRef(at) = either(site, &ORIGIN)? else {
            return None;
        };
        let origin = unit.entry(at).ok()?;
        if let Some(entry) = entry_of(dwarf, unit, &origin) {
            return Some(entry);
        }
        let name = global_name(dwarf, unit, &origin)?;
        let globals = self.calls.globals.get_or_init(|| self.read_globals());
        globals.get(name.slice()).copied()
    }

    /// Functions by the names that the linker knows them by. Those of a module have no addresses of
    /// their own.
    fn read_globals(&self) -> HashMap<Box<[u8]>, u64> {
        let image = Image::parse(&self.map).ok().filter(|i| !i.is_relocatable());
        let Some(image) = image else {
            return HashMap::new();
        };
        let functions = image.symbols().filter(|s| s.is_text && s.is_global);
        functions
            .map(|s| (s.name.as_bytes().into(), s.addr.0))
            .collect()
    }
}

impl<'d> Locator<'_, 'd> {
    /// Whether the call is of this function and no other.
    fn calls(&self, site: &Entry<'d>, callee: &Callee<'_>) -> bool {
        if let Some(target) = either(site, &TARGET) {
            return self.computed(target) == Some(callee.entry);
        }
        let Some(AttributeValue::UnitRef(at)) = either(site, &ORIGIN) else {
            return false;
        };
        let Ok(origin) = self.unit.entry(at) else {
            return false;
        };
        match entry_of(self.dwarf, self.unit, &origin) {
            Some(entry) => entry.wrapping_add(self.state.slide.0) == callee.entry,
            None => {
                let name = global_name(self.dwarf, self.unit, &origin);
                name.is_some_and(|name| callee.global == Some(name.slice()))
            }
        }
    }

    /// The number that an expression leaves.
    fn computed(&self, expression: AttributeValue<Slice<'d>>) -> Option<u64> {
        let AttributeValue::Exprloc(expression) = expression else {
            return None;
        };
        match self.pieces(expression)?[..] {
            [piece] => match piece.location {
                Location::Address { address } => Some(address),
                Location::Value { value } => match value {
                    Value::F32(_) | Value::F64(_) => None,
                    number => number.to_u64(u64::MAX).ok(),
                },
                Location::Register { register } => self.state.registers.get(register),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The function of the unit whose code is at an address.
pub(super) fn function_at<'d>(
    dwarf: &Dwarf<Slice<'d>>,
    unit: &Unit<Slice<'d>>,
    addr: u64,
) -> Option<UnitOffset> {
    let mut tree = unit.entries_tree(None).ok()?;
    let mut functions = tree.root().ok()?.children();
    while let Some(child) = functions.next().ok()? {
        let entry = child.entry();
        if entry.tag() == gimli::DW_TAG_subprogram && covers(dwarf, unit, entry, addr) {
            return Some(entry.offset());
        }
    }
    None
}

/// The first instruction of a function. A compiler names the part that begins with it first.
fn entry_of<'d>(
    dwarf: &Dwarf<Slice<'d>>,
    unit: &Unit<Slice<'d>>,
    function: &Entry<'d>,
) -> Option<u64> {
    let mut ranges = dwarf.die_ranges(unit, function).ok()?;
    let first = ranges.next().ok()??;
    (first.begin < first.end).then_some(first.begin)
}

/// The name that the linker knows it by, if it is visible outside of its file.
fn global_name<'d>(
    dwarf: &Dwarf<Slice<'d>>,
    unit: &Unit<Slice<'d>>,
    function: &Entry<'d>,
) -> Option<Slice<'d>> {
    let get = |name| attribute(unit, function, name);
    let is_global = get(gimli::DW_AT_external) == Some(AttributeValue::Flag(true));
    let name = get(gimli::DW_AT_linkage_name).or_else(|| get(gimli::DW_AT_name));
    dwarf.attr_string(unit, name.filter(|_| is_global)?).ok()
}

/// The register that a location is.
fn in_register(at: AttributeValue<Slice<'_>>, unit: &Unit<Slice<'_>>) -> Option<Register> {
    let AttributeValue::Exprloc(expression) = at else {
        return None;
    };
    let mut operations = expression.operations(unit.encoding());
    match (operations.next().ok()??, operations.next().ok()?) {
        (Operation::Register { register }, None) => Some(register),
        _ => None,
    }
}

/// Calls `visit` with each call in a function and its parameters, those of inlined functions
/// among them.
fn each_call<'d>(
    unit: &Unit<Slice<'d>>,
    function: UnitOffset,
    mut visit: impl FnMut(&Entry<'d>, &[Entry<'d>]),
) -> Option<()> {
    let mut entries = unit.entries_at_offset(function).ok()?;
    let mut call: Option<(isize, Entry<'d>, Vec<Entry<'d>>)> = None;
    let mut start = None;
    while let Some(entry) = entries.next_dfs().ok()? {
        let depth = entry.depth();
        let start = *start.get_or_insert(depth);
        if depth <= start && entry.offset() != function {
            break;
        }
        if let Some((_, site, parameters)) = call.take_if(|call| depth <= call.0) {
            visit(&site, &parameters);
        }
        if CALL_SITE.contains(&entry.tag()) {
            call = Some((depth, entry.clone(), Vec::new()));
        } else if let Some((_, _, parameters)) = &mut call
            && PARAMETER.contains(&entry.tag())
        {
            parameters.push(entry.clone());
        }
    }
    if let Some((_, site, parameters)) = call {
        visit(&site, &parameters);
    }
    Some(())
}
