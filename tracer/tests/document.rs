//! `docs/FORMAT.md` names every code, field and list of this build.

use colinux_tracer::{
    BlkOp, ChunkKind, ControlVerb, EndReason, EventKind, FieldType, FlushKind, InputKind,
    IrqDirection, IrqSource, LogClass, MarkOrigin, PageAccess, PassageReason, PokeTarget,
    ShutdownKind, SwitchReason,
};

const TEXT: &str = include_str!("../../docs/FORMAT.md");

fn row(start: &str) -> &'static str {
    let row = TEXT.lines().find(|line| line.starts_with(start));
    row.unwrap_or_else(|| panic!("no row begins with {start}"))
}

fn fields(row: &str, fields: &[(&str, FieldType)]) {
    let mut rest = row;
    for (name, ty) in fields {
        let text = format!("`{name}` {ty}");
        let at = rest
            .find(&text)
            .unwrap_or_else(|| panic!("{text} is not in {row}"));
        rest = &rest[at + text.len()..];
    }
}

#[test]
fn every_event_and_input_is_described() {
    for kind in EventKind::ALL {
        let (code, facility, level) = (kind.code(), kind.facility(), kind.level());
        let text = row(&format!("| 0x{code:02X} | {facility}/{level} | `{kind}` |"));
        fields(text, kind.fields());
    }
    for kind in InputKind::ALL {
        fields(
            row(&format!("| 0x{:02X} | `{kind}` |", kind.code())),
            kind.fields(),
        );
    }
}

#[test]
fn every_chunk_kind_and_field_type_is_described() {
    for kind in ChunkKind::ALL {
        row(&format!("| {} | {} |", kind.code(), kind.name()));
    }
    for ty in (0..=255).filter_map(FieldType::from_code) {
        row(&format!("| {} | {ty} |", ty.code()));
    }
}

#[test]
fn every_list_is_described() {
    macro_rules! lists {
        ($($list:ident)*) => {$(
            let items = $list::ALL.iter().map(|item| format!("{} {item}", item.code()));
            let items: Vec<_> = items.collect();
            row(&format!("| {} | {} |", stringify!($list), items.join(", ")));
        )*};
    }
    lists! {
        PassageReason IrqDirection IrqSource PageAccess FlushKind ShutdownKind ControlVerb
        PokeTarget EndReason SwitchReason BlkOp LogClass MarkOrigin
    }
}
