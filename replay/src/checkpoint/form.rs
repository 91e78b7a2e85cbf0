//! A checkpoint as bytes: the state, and what of RAM is other than at an earlier one.
//!
//! `docs/FORMAT.md`, section "Checkpoints", is the description of this form. Nothing of a host is in
//! it, so that a file that was made on one opens on another.

use std::sync::Arc;

use colinux_driver::mem::tlb::{TlbState, Translation};
use colinux_driver::snapshot::MachineState;
use serde::{Deserialize, Serialize};

use super::pages::{PAGE, Pages, Pool};
use super::runs;
use crate::hooks::HookState;

/// Layout of [`Body`]. A build refuses others, and goes by an earlier checkpoint or power-on instead.
const LAYOUT: u16 = 1;

/// What is stored of a checkpoint, but for the content of pages, which follows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Body {
    layout: u16,
    /// The checkpoint that the pages are told relative to; power-on without one.
    pub(crate) parent: Option<u32>,
    /// Inputs the machine had been given.
    pub(crate) inputs: u64,
    /// Events recorded so far.
    pub(crate) events: u64,
    /// What the hooks on the guest's kernel remember.
    pub(crate) hooks: HookState,
    /// All but RAM and translations.
    pub(crate) state: MachineState,
    translations: Translations,
    /// Pages that differ, by their distance from the one before.
    pub(crate) rows: Vec<(u32, Row)>,
}

/// The content of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Row {
    /// Zeros.
    Zero,
    /// What another page holds, in the parent or by a row before.
    Copy(u32),
    /// Bytes of RAM at power-on from an offset, and then zeros.
    PowerOn { offset: u64, len: u16 },
    /// The next bytes of the data.
    Whole,
    /// What the page held in the parent, with the changes that the data has next.
    Changes,
}

/// The TLB by columns, as differences: neighbours differ little, and so it packs well.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Translations {
    gaps: Vec<u64>,
    moves: Vec<i64>,
    rights: Vec<u8>,
    large: Vec<u64>,
}

impl Translations {
    fn of(state: &TlbState) -> Self {
        let mut columns = Translations {
            large: state.large.clone(),
            ..Translations::default()
        };
        let (mut vpn, mut distance) = (0u64, 0u64);
        for t in &state.translations {
            columns.gaps.push(t.vpn.wrapping_sub(vpn));
            let now = t.gpfn.wrapping_sub(t.vpn);
            columns.moves.push(now.wrapping_sub(distance) as i64);
            columns.rights.push(t.rights);
            (vpn, distance) = (t.vpn, now);
        }
        columns
    }

    fn state(&self) -> TlbState {
        let (mut vpn, mut distance) = (0u64, 0u64);
        let rows = self.gaps.iter().zip(&self.moves).zip(&self.rights);
        let translations = rows.map(|((gap, by), rights)| {
            vpn = vpn.wrapping_add(*gap);
            distance = distance.wrapping_add(*by as u64);
            Translation {
                vpn,
                gpfn: vpn.wrapping_add(distance),
                rights: *rights,
            }
        });
        TlbState {
            translations: translations.collect(),
            large: self.large.clone(),
        }
    }
}

impl Body {
    /// A body without rows.
    pub(crate) fn new(
        parent: Option<u32>,
        (inputs, events): (u64, u64),
        hooks: HookState,
        mut state: MachineState,
    ) -> Self {
        let translations = Translations::of(&state.tlb);
        state.tlb = TlbState::default();
        Body {
            layout: LAYOUT,
            parent,
            inputs,
            events,
            hooks,
            state,
            translations,
            rows: Vec::new(),
        }
    }

    /// The bytes, with the content of pages behind.
    pub(crate) fn encode(&self, data: &[u8]) -> Vec<u8> {
        // Plain data into memory: this cannot fail.
        let mut bytes = postcard::to_allocvec(self).unwrap_or_default();
        bytes.extend_from_slice(data);
        bytes
    }

    /// Reads the bytes; says what is wrong with them.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Body, &[u8]), String> {
        let layout = postcard::take_from_bytes::<u16>(bytes).map(|(layout, _)| layout);
        match layout {
            Ok(LAYOUT) => {}
            Ok(other) => return Err(format!("its layout {other} is not the known one, {LAYOUT}")),
            Err(_) => return Err("it is empty".to_owned()),
        }
        let (mut body, data) = postcard::take_from_bytes::<Body>(bytes)
            .map_err(|error| format!("its description does not decode: {error}"))?;
        body.state.tlb = body.translations.state();
        Ok((body, data))
    }

    /// The pages of this checkpoint, from those of its parent and of power-on.
    pub(crate) fn pages(
        &self,
        mut data: &[u8],
        parent: &Pages,
        power_on: &Pages,
        count: usize,
        pool: &mut Pool,
    ) -> Result<Pages, String> {
        let mut pages = parent.clone();
        let mut page = 0usize;
        let mut buffer = [0; PAGE];
        for (gap, row) in &self.rows {
            page = page.saturating_add(*gap as usize);
            if page >= count {
                return Err(format!("page {page} is outside of RAM"));
            }
            let short = || "the content of pages is too short".to_owned();
            let version = match row {
                Row::Zero => Arc::clone(pool.zero()),
                Row::Copy(from) => match pages.get(*from as usize) {
                    Some(version) => Arc::clone(version),
                    None => return Err(format!("page {page} copies a page that is not there")),
                },
                Row::PowerOn { offset, len } => {
                    let len = usize::from(*len).min(PAGE);
                    buffer.fill(0);
                    power_on.read(*offset, &mut buffer[..len]);
                    pool.version(&buffer, None)
                }
                Row::Whole => {
                    let (now, rest) = data.split_at_checked(PAGE).ok_or_else(short)?;
                    data = rest;
                    pool.version(now, None)
                }
                Row::Changes => {
                    buffer.copy_from_slice(pages.get(page).unwrap_or(pool.zero()));
                    data = runs::apply(data, &mut buffer).ok_or_else(short)?;
                    pool.version(&buffer, None)
                }
            };
            pages.set(page, Some(version));
        }
        if data.is_empty() {
            Ok(pages)
        } else {
            Err("the content of pages is too long".to_owned())
        }
    }
}
