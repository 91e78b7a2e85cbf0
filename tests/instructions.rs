//! Readable one-line cases for single instructions: `tests/ins/*.ins`.

#[allow(dead_code, reason = "shared with the test against the host's CPU")]
mod oracle;

use iced_x86::{Decoder, Formatter, IntelFormatter};
use oracle::guest::Guest;
use oracle::ins::{Line, check, parse};
use oracle::instance::DECODER_OPTIONS;

/// Fewer files or cases than this: something was not found.
const FILES_MIN: usize = 8;
const CASES_MIN: usize = 150;

/// All cases of all files, in order.
fn lines() -> Vec<Line> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ins");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "ins"))
        .collect();
    files.sort();
    assert!(
        files.len() >= FILES_MIN,
        "only {} files in {directory}",
        files.len()
    );
    let mut lines = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let content = std::fs::read_to_string(&file).unwrap();
        lines.extend(parse(&name, &content).unwrap_or_else(|e| panic!("{e}")));
    }
    lines
}

#[test]
fn every_case_holds() {
    let lines = lines();
    assert!(lines.len() >= CASES_MIN, "only {} cases", lines.len());
    let mut guest = Guest::new();
    let mut report = String::new();
    for line in &lines {
        guest.set_privilege(line.privilege);
        let wrong = check(line, &guest.run(&line.case));
        if !wrong.is_empty() {
            report.push_str(&format!(
                "{}: {}: {}\n",
                line.place,
                line.text,
                wrong.join(", ")
            ));
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn the_text_is_what_the_bytes_mean() {
    let mut report = String::new();
    for line in lines() {
        let bytes = &line.case.code[..line.case.code_len as usize];
        let rip = line.case.registers.rip;
        let instruction = Decoder::with_ip(64, bytes, rip, DECODER_OPTIONS).decode();
        let mut text = String::new();
        IntelFormatter::new().format(&instruction, &mut text);
        if text != line.text || instruction.len() != bytes.len() {
            report.push_str(&format!("{}: `{}` is `{text}`\n", line.place, line.text));
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn a_wrong_case_is_noticed() {
    let lines = parse(
        "here",
        "00 d8 | add al,bl | rax=0xff rbx=1 | rax=0 cf=1 zf=1 pf=1",
    )
    .unwrap();
    let wrong = check(&lines[0], &Guest::new().run(&lines[0].case));
    assert_eq!(wrong, ["af=0x1 instead of 0x0"]);
    assert!(parse("here", "00 d8 | add al,bl | rax=0xff").is_err());
    assert!(parse("here", "00 d8 | add al,bl | eax=0xff |").is_err());
}

/// The same cases, where an ordinary process can run them: the expectations are true.
#[test]
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn the_host_agrees_with_every_case() {
    let lines: Vec<Line> = lines().into_iter().filter(runs_on_host).collect();
    let mut host = oracle::host::Host::new(lines.len());
    let cases: Vec<_> = lines.iter().map(|line| (*line.case).clone()).collect();
    let mut report = String::new();
    for (line, end) in lines.iter().zip(host.run(&cases)) {
        let wrong = end.map_or_else(
            || vec!["the child died".to_owned()],
            |end| check(line, &end),
        );
        if !wrong.is_empty() {
            report.push_str(&format!(
                "{}: {}: {}\n",
                line.place,
                line.text,
                wrong.join(", ")
            ));
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

/// Privilege 3, and nothing the oracle leaves out.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn runs_on_host(line: &Line) -> bool {
    let bytes = &line.case.code[..line.case.code_len as usize];
    let instruction = Decoder::with_ip(64, bytes, 0, DECODER_OPTIONS).decode();
    let excluded = oracle::exclusions::MNEMONICS
        .iter()
        .any(|(m, _)| *m == instruction.mnemonic())
        || oracle::exclusions::CODES
            .iter()
            .any(|(c, _)| *c == instruction.code());
    line.privilege == 3 && !excluded
}
