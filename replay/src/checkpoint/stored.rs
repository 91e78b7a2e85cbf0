//! The checkpoints that a recording holds.

use std::collections::BTreeSet;

use colinux_tracer::{CheckpointInfo, Reader};

use super::form::Body;
use super::{Checkpoint, Checkpoints, Keep};

/// The checkpoints in a file, as far as they can be used.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// By tick.
    infos: Vec<CheckpointInfo>,
    reader: Option<Reader>,
    /// Numbers of those that turned out to be the state they claim to be.
    proven: BTreeSet<u32>,
    /// What is to be said about those that cannot be used.
    notes: Vec<String>,
}

impl Stored {
    /// Those of a recording. That there are none is not an error: a replay can begin at power-on.
    pub(crate) fn open(reader: &Reader) -> Self {
        let mut stored = Stored {
            reader: Some(reader.clone()),
            ..Stored::default()
        };
        match reader.checkpoints() {
            Ok(infos) => stored.infos = infos,
            Err(error) => stored.notes.push(format!("{error}; no checkpoint is used")),
        }
        stored
    }

    /// Says this as well.
    pub(crate) fn note(&mut self, notes: Vec<String>) {
        self.notes.extend(notes);
    }

    /// What there is to say, once.
    pub(crate) fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Whether this tick has one.
    pub(crate) fn has(&self, tick: u64) -> bool {
        self.infos.binary_search_by_key(&tick, |i| i.tick).is_ok()
    }

    /// The last one that is not after this tick.
    pub(crate) fn at_or_before(&self, tick: u64) -> Option<u64> {
        let after = self.infos.partition_point(|info| info.tick <= tick);
        Some(self.infos[after.checked_sub(1)?].tick)
    }

    /// What the state at a tick is to hash to, while nobody has looked whether it does.
    pub(crate) fn unproven(&self, tick: u64) -> Option<&CheckpointInfo> {
        let at = self.infos.binary_search_by_key(&tick, |i| i.tick).ok()?;
        Some(&self.infos[at]).filter(|info| !self.proven.contains(&info.id))
    }

    /// The state at this tick is what it claims to be.
    pub(crate) fn prove(&mut self, tick: u64) {
        if let Some(id) = self.unproven(tick).map(|info| info.id) {
            self.proven.insert(id);
        }
    }

    /// The one at this tick cannot be used, and so nor can those that build on it.
    pub(crate) fn refuse(&mut self, tick: u64, why: &str) {
        let Ok(at) = self.infos.binary_search_by_key(&tick, |i| i.tick) else {
            return;
        };
        let gone = self.infos.remove(at);
        let instead = match at.checked_sub(1) {
            Some(before) => format!("the one at @{} is used", self.infos[before].tick),
            None => "the replay begins at power-on".to_owned(),
        };
        self.notes.push(format!(
            "checkpoint {} at @{tick} cannot be used: {why}; {instead}",
            gone.id
        ));
    }

    /// Brings one into memory, with those it builds on. `false` if it turned out unusable.
    pub(crate) fn load(&mut self, tick: u64, into: &mut Checkpoints, pages: usize) -> bool {
        let mut chain = Vec::new();
        let mut wanted = Some(tick);
        while let Some(tick) = wanted.filter(|tick| !into.has(*tick)) {
            match self.read(tick) {
                Ok((info, bytes, parent)) => {
                    chain.push((info, bytes));
                    wanted = parent;
                }
                Err(why) => {
                    self.refuse(tick, &why);
                    // What was to be read through it is no better off.
                    for (info, _) in chain {
                        self.refuse(info.tick, "it builds on one that cannot be used");
                    }
                    return false;
                }
            }
        }
        let mut parent = wanted.unwrap_or(0);
        while let Some((info, bytes)) = chain.pop() {
            if let Err(why) = decode(&info, &bytes, parent, into, pages) {
                self.refuse(info.tick, &why);
                return false;
            }
            parent = info.tick;
        }
        true
    }

    /// The bytes of one, and the tick of the one it builds on.
    fn read(&self, tick: u64) -> Result<(CheckpointInfo, Vec<u8>, Option<u64>), String> {
        let reader = self.reader.as_ref().ok_or("there is no file")?;
        let at = self.infos.binary_search_by_key(&tick, |i| i.tick);
        let info = at.map(|at| self.infos[at].clone());
        let info = info.map_err(|_| "it builds on one that is not there")?;
        let bytes = reader
            .checkpoint(&info)
            .map_err(|error| error.to_string())?;
        let (body, _) = Body::decode(&bytes)?;
        let parent = match body.parent {
            None => None,
            Some(id) => {
                let parent = self.infos.iter().find(|i| i.id == id && i.tick < tick);
                Some(parent.ok_or("it builds on one that is not there")?.tick)
            }
        };
        Ok((info, bytes, parent))
    }
}

fn decode(
    info: &CheckpointInfo,
    bytes: &[u8],
    parent: u64,
    into: &mut Checkpoints,
    count: usize,
) -> Result<(), String> {
    let (body, data) = Body::decode(bytes)?;
    if body.state.tick.0 != info.tick {
        return Err(format!("it holds the state at {}", body.state.tick));
    }
    let (Some(power_on), Some(parent)) = (into.pages_at(0), into.pages_at(parent)) else {
        return Err("what it builds on is not there".to_owned());
    };
    let pages = body.pages(data, &parent, &power_on, count, into.pool())?;
    into.put(Checkpoint {
        state: body.state,
        pages,
        inputs: usize::try_from(body.inputs).unwrap_or(usize::MAX),
        events: body.events,
        hooks: body.hooks,
        keep: Keep::Stored(0),
    });
    Ok(())
}
