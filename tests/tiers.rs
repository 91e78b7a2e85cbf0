//! Which back end ran the vCPU shows nowhere: a whole boot with shell work and floats, with every
//! one of them.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod common;

use common::{Run, Sandbox};
use std::process::Command;

/// Processes, pipes, files, and code that is thrown away when its process ends.
const WORK: &str = "i=0; while [ $i -lt 8 ]; do echo $i | cat | grep -c . >/tmp/n; /bin/true; \
    i=$((i + 1)); done; ls -lR /sys | md5sum; gzip -c /bin/busybox | wc -c; awk 'BEGIN { for (i = 1; \
    i < 20000; i++) s += i / (i + 0.5); print s }'";

fn record(sandbox: &Sandbox, tier: &str, file: &str, command: &str) {
    let kernel = common::kernel("6.1");
    let args = ["record", "--tier", tier, "--kernel", &kernel];
    let run = sandbox.ok(&[&args[..], &["-o", file, "--", command]].concat());
    assert!(!run.out.contains("Oops"), "{run}");
}

/// What two recordings of the same have in common.
fn compared(sandbox: &Sandbox, file: &str) -> serde_json::Value {
    let info = sandbox.ok(&["info", "--json", file]).out;
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert!(info["compared"].is_string(), "{info}");
    info["compared"].clone()
}

#[test]
fn a_recording_of_one_tier_is_verified_by_the_other() {
    let sandbox = Sandbox::new();
    record(&sandbox, "0", "zero.clt", WORK);
    record(&sandbox, "1", "one.clt", WORK);
    assert_eq!(
        compared(&sandbox, "zero.clt"),
        compared(&sandbox, "one.clt")
    );
    sandbox.ok(&["verify", "--tier", "1", "zero.clt"]);
    sandbox.ok(&["verify", "--tier", "0", "one.clt"]);
    // Tier 1 really ran, and translated nearly all.
    let stats = sandbox.ok(&["stats", "--vcpu", "--json", "one.clt"]).out;
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    assert!(stats["native_percent"].as_f64().unwrap() > 99.0, "{stats}");
}

#[test]
fn a_boot_is_the_same_in_lock_step() {
    let sandbox = Sandbox::new();
    record(&sandbox, "compare", "both.clt", "uname -r");
    sandbox.ok(&["verify", "--tier", "compare", "both.clt"]);
}

/// A program that uses the float unit in every way a compiler does, and changes its rounding.
const FLOATS: &str = r#"
#include <fenv.h>
#include <math.h>
#include <stdio.h>
int main(void) {
    static const int modes[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
    volatile double x = 1.0, three = 3.0, tiny = 1e-308;
    volatile float f = 0.1f;
    for (int m = 0; m < 4; m++) {
        fesetround(modes[m]);
        feclearexcept(FE_ALL_EXCEPT);
        for (int i = 0; i < 3000; i++) {
            x = sqrt(x / three + i) * 1.000001 - (float)x * f;
            f = (float)(f * 0.999 + i % 7);
            if (x > 1e6) x = -x / 1e3;
        }
        printf("%a %a %d %a %x\n", x, f, (int)x, tiny / 7, (unsigned)fetestexcept(FE_ALL_EXCEPT));
    }
    return 0;
}
"#;

#[test]
fn floats_round_and_raise_flags_as_on_the_host() {
    let sandbox = Sandbox::new();
    let source = sandbox.file("floats.c", FLOATS.as_bytes());
    let program = sandbox.path("floats");
    let built = Command::new("gcc")
        .args(["-O1", "-frounding-math", "-static", "-o"])
        .arg(&program)
        .args([&source, "-lm"])
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", Run::from(built));
    let host = Run::from(Command::new(&program).output().unwrap());
    let kernel = common::kernel("6.1");
    let path = program.to_str().unwrap();
    let guest = sandbox.ok(&["record", "--kernel", &kernel, "-o", "f.clt", "--", path]);
    assert_eq!(guest.out.replace('\r', ""), host.out);
    sandbox.ok(&["verify", "--tier", "0", "f.clt"]);
}
