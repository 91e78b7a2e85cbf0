//! `symbols --print`: a value in the guest's memory, as gdb would show it.

use std::cell::OnceCell;
use std::cell::RefCell;
use std::collections::BTreeMap;

use colinux_driver::machine::Machine;
use colinux_replay::MachineMemory;
use colinux_symbols::btf::{Btf, PrintContext, TypeId};
use colinux_symbols::dwarf::TypeName;
use colinux_symbols::expr::{self, ExprError};
use colinux_symbols::{DebugImage, GuestMemory, Gva, Resolver, SymbolError};
use serde_json::json;

use crate::exit::{self, Failure};
use crate::names::Names;

/// What is known of the guest while expressions are evaluated.
pub(crate) struct Printer<'p> {
    btf: &'p Btf,
    resolver: &'p Resolver,
    memory: MachineMemory<'p>,
    /// Addresses of programs are those of the program that runs.
    is_program: bool,
    /// Where the pointer to the running task is.
    current: Option<Gva>,
    names: &'p Names,
    image: OnceCell<Option<DebugImage>>,
    types: RefCell<BTreeMap<String, Option<TypeId>>>,
}

impl<'p> Printer<'p> {
    pub(crate) fn new(
        names: &'p Names,
        resolver: &'p Resolver,
        machine: &'p mut Machine,
    ) -> Result<Self, Failure> {
        let missing = SymbolError::NoSection { section: ".BTF" };
        let btf = names.kernel.kernel().btf.as_deref();
        let btf = btf.ok_or_else(|| Failure::new(exit::SYMBOLS, missing))?;
        let slide = resolver.slide();
        let memory = MachineMemory::new(machine);
        let current = names.kernel.kernel().current_slot(&memory, slide);
        Ok(Printer {
            btf,
            resolver,
            memory,
            is_program: true,
            current,
            names,
            image: OnceCell::new(),
            types: RefCell::default(),
        })
    }

    /// For a task that does not run: what its pointers into its program point to is not in reach.
    pub(crate) const fn leave_out_program(&mut self) {
        self.is_program = false;
    }

    pub(crate) const fn btf(&self) -> &Btf {
        self.btf
    }

    pub(crate) const fn memory(&self) -> &MachineMemory<'p> {
        &self.memory
    }

    /// One line: the expression and its value.
    pub(crate) fn line(&self, text: &str, as_json: bool) -> Result<String, Failure> {
        let failed = |error: ExprError| Failure::new(exit::FAILED, error);
        let place = expr::evaluate(text, self.btf, self, &self.memory).map_err(failed)?;
        let value = expr::show(&place, self.btf, &self.memory, self).map_err(failed)?;
        Ok(if as_json {
            let ty = self.btf.type_name(place.ty);
            json!({"print": text, "address": place.gva.0, "type": ty, "value": value}).to_string()
        } else {
            format!("{text} = {value}")
        })
    }
}

impl expr::Names for Printer<'_> {
    fn address(&self, name: &str) -> Option<Gva> {
        match self.current {
            Some(current) if name == "current" => Some(current),
            _ => self.resolver.address_of(name),
        }
    }

    /// By the debug image. `current` is the task that runs.
    fn type_of(&self, name: &str) -> Option<TypeId> {
        if name == "current" {
            let task = TypeName::Named("struct task_struct".to_owned());
            return TypeName::Pointer(Box::new(task)).find(self.btf);
        }
        if let Some(known) = self.types.borrow().get(name) {
            return *known;
        }
        let open = || DebugImage::open(self.names.image_path()?, None).ok();
        let image = self.image.get_or_init(open).as_ref();
        let found = image.and_then(|image| image.type_of_variable(name)?.find(self.btf));
        self.types.borrow_mut().insert(name.to_owned(), found);
        found
    }
}

impl PrintContext for Printer<'_> {
    fn symbol(&self, gva: u64) -> Option<String> {
        let place = self.resolver.place(Gva(gva))?;
        Some(match place.offset {
            0 => place.name.to_owned(),
            offset => format!("{}+{offset}", place.name),
        })
    }

    fn string(&self, gva: u64, limit: usize) -> Option<Vec<u8>> {
        if !self.is_program && gva >> 63 == 0 {
            return None;
        }
        let mut text = Vec::new();
        let mut byte = [0];
        while text.len() < limit {
            if !self
                .memory
                .read(gva.wrapping_add(text.len() as u64), &mut byte)
            {
                return (!text.is_empty()).then_some(text);
            }
            if byte[0] == 0 {
                break;
            }
            text.push(byte[0]);
        }
        Some(text)
    }
}
