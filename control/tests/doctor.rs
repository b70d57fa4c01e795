//! `turnpike doctor` on made-up machines and on this one. What the trees hold follows the kernel's documents
//! (Documentation/ABI, admin-guide/kernel-parameters, proc(5)), and each verdict what DPDK's guide for Linux asks for.
#![allow(missing_docs)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A made-up machine.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        Machine(tempfile::tempdir().unwrap())
    }

    /// Writes a file, and the directories to it.
    fn file(&self, path: &str, text: impl AsRef<str>) -> &Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{}\n", text.as_ref())).unwrap();
        self
    }

    /// Makes a symbolic link, as sysfs has them.
    fn link(&self, path: &str, target: &str) -> &Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        symlink(target, path).unwrap();
        self
    }

    fn remove(&self, path: &str) -> &Self {
        let path = self.0.path().join(path);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
        self
    }

    fn mode(&self, path: &str, mode: u32) -> &Self {
        fs::set_permissions(self.0.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    /// A network device: address, vendor, device, driver, node, IOMMU group, PCIe speed and lanes.
    fn nic(&self, address: &str, ids: [&str; 2], driver: Option<&str>, node: &str, group: &str, lanes: u32) -> &Self {
        let device = format!("sys/bus/pci/devices/{address}");
        self.file(&format!("{device}/class"), "0x020000")
            .file(&format!("{device}/vendor"), ids[0])
            .file(&format!("{device}/device"), ids[1])
            .file(&format!("{device}/numa_node"), node)
            .file(&format!("{device}/current_link_speed"), "8.0 GT/s PCIe")
            .file(&format!("{device}/max_link_speed"), "8.0 GT/s PCIe")
            .file(&format!("{device}/current_link_width"), lanes.to_string())
            .file(&format!("{device}/max_link_width"), "8");
        if !group.is_empty() {
            self.link(&format!("{device}/iommu_group"), &format!("../../../../kernel/iommu_groups/{group}"))
                .link(&format!("sys/kernel/iommu_groups/{group}/devices/{address}"), &format!("../../{address}"));
        }
        match driver {
            Some(driver) => self.link(&format!("{device}/driver"), &format!("../../../../bus/pci/drivers/{driver}")),
            None => self,
        }
    }

    /// Two sockets of four cores with two threads each, two NICs of 10 and 25 Gbit/s at the first, made ready as
    /// docs/bare-metal.md says. Core 2 is the worker's, 10 is its sibling.
    fn ready() -> Self {
        let machine = Machine::new();
        machine
            .file(
                "proc/cmdline",
                "BOOT_IMAGE=/boot/vmlinuz-6.1.0-28-amd64 root=/dev/sda1 ro quiet intel_iommu=on iommu=pt \
                 default_hugepagesz=1G hugepagesz=1G hugepages=8 isolcpus=2,10 nohz_full=2,10 rcu_nocbs=2,10 \
                 irqaffinity=0-1,3-9,11-15 nmi_watchdog=0",
            )
            .file(
                "proc/cpuinfo",
                "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold 5122 CPU @ 3.60GHz\n\
                 flags\t\t: fpu sse4_2 movbe popcnt aes xsave avx f16c abm bmi1 avx2 bmi2 fma avx512f\n",
            )
            .file("proc/sys/kernel/nmi_watchdog", "0")
            .file("proc/self/status", "Name:\tturnpike\nCapEff:\t0000000000000000")
            .file("proc/self/limits", LIMITS.replace("LIMIT", "unlimited"))
            .file("proc/mounts", "sysfs /sys sysfs rw 0 0\nhugetlbfs /dev/hugepages hugetlbfs rw,pagesize=1024M 0 0")
            .file("proc/net/route", "Iface\tDestination\tGateway\neno1\t00000000\t0100A8C0")
            .file("proc/irq/25/smp_affinity_list", "0-15")
            .file("proc/irq/25/effective_affinity_list", "1")
            .file("proc/irq/default_smp_affinity", "fbfb")
            .file("sys/devices/system/cpu/online", "0-15")
            .file("sys/devices/system/cpu/isolated", "2,10")
            .file("sys/devices/system/cpu/nohz_full", "2,10")
            .file("sys/devices/system/node/node0/cpulist", "0-3,8-11")
            .file("sys/devices/system/node/node1/cpulist", "4-7,12-15");
        for core in 0..16_u32 {
            let cpu = format!("sys/devices/system/cpu/cpu{core}");
            machine
                .file(&format!("{cpu}/topology/thread_siblings_list"), format!("{},{}", core % 8, core % 8 + 8))
                .file(&format!("{cpu}/cpufreq/scaling_governor"), "performance")
                .file(&format!("{cpu}/cpuidle/state0/name"), "POLL")
                .file(&format!("{cpu}/cpuidle/state0/latency"), "0")
                .file(&format!("{cpu}/cpuidle/state1/name"), "C1")
                .file(&format!("{cpu}/cpuidle/state1/latency"), "2")
                .file(&format!("{cpu}/cpuidle/state2/name"), "C6")
                .file(&format!("{cpu}/cpuidle/state2/latency"), "133")
                .file(&format!("{cpu}/cpuidle/state2/disable"), "1");
        }
        machine.pages("sys/kernel/mm/hugepages", 1_048_576, 8).pages("sys/kernel/mm/hugepages", 2048, 0);
        for node in 0..2 {
            let pages = format!("sys/devices/system/node/node{node}/hugepages");
            machine.pages(&pages, 1_048_576, 4).pages(&pages, 2048, 0);
        }
        machine
            .nic("0000:04:00.0", ["0x8086", "0x1521"], Some("igb"), "0", "20", 8)
            .nic("0000:3b:00.0", ["0x8086", "0x1572"], Some("vfio-pci"), "0", "41", 8)
            .nic("0000:5e:00.0", ["0x8086", "0x159b"], Some("vfio-pci"), "0", "42", 8)
            .file("sys/bus/pci/devices/0000:04:00.0/net/eno1/mtu", "1500")
            .file("sys/bus/pci/drivers/vfio-pci/new_id", "")
            .file("lib/firmware/intel/ice/ddp/ice.pkg", "");
        for file in ["vfio", "41", "42"] {
            // The group that the udev rule gives can't be had here; what everybody may use is as good.
            machine.file(&format!("dev/vfio/{file}"), "").mode(&format!("dev/vfio/{file}"), 0o666);
        }
        machine
    }

    fn pages(&self, directory: &str, kib: u32, number: u32) -> &Self {
        let directory = format!("{directory}/hugepages-{kib}kB");
        let number = number.to_string();
        self.file(&format!("{directory}/nr_hugepages"), &number).file(&format!("{directory}/free_hugepages"), number)
    }

    /// Runs the doctor here.
    fn doctor(&self, arguments: &[&str]) -> Output {
        doctor(&[&["--root", self.0.path().to_str().unwrap()], arguments].concat())
    }

    /// What it finds here with this configuration.
    fn findings(&self, config: Option<&str>) -> Findings {
        let file = self.0.path().join("turnpike.yaml");
        let mut arguments = vec!["--json"];
        if let Some(config) = config {
            fs::write(&file, config).unwrap();
            arguments.extend(["-c", file.to_str().unwrap()]);
        }
        Findings::read(&self.doctor(&arguments))
    }
}

const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units     
Max open files            1024                 1048576              files     
Max locked memory         LIMIT              LIMIT              bytes     
";

/// The two ports and the worker of docs/bare-metal.md.
fn config() -> String {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bare-metal.md")).unwrap();
    page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap().to_owned()
}

fn doctor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_turnpike")).arg("doctor").args(arguments).output().unwrap()
}

/// A report as JSON, and the exit code with it.
struct Findings {
    list: Vec<Value>,
    code: Option<i32>,
}

impl Findings {
    fn read(output: &Output) -> Self {
        let list: Vec<Value> = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        for finding in &list {
            let bad = ["warn", "fail"].contains(&finding["verdict"].as_str().unwrap());
            assert_eq!(bad, finding["remedy"].is_string(), "a remedy where there is something to change: {finding}");
            assert!(!finding["found"].as_str().unwrap().contains('\n'), "{finding}");
        }
        let fails = list.iter().any(|finding| finding["verdict"] == "fail");
        assert_eq!(output.status.code(), Some(i32::from(fails)));
        Findings { list, code: output.status.code() }
    }

    /// The finding of this name, on this device if there is one; it has this verdict, and says these words in what was
    /// found or what to do.
    #[track_caller]
    fn says(&self, check: &str, verdict: &str, words: &[&str]) -> &Self {
        let (subject, check) = check.rsplit_once(' ').map_or((None, check), |(subject, check)| (Some(subject), check));
        let found = self
            .list
            .iter()
            .find(|finding| finding["check"] == check && subject.is_none_or(|subject| finding["subject"] == subject));
        let found = found.unwrap_or_else(|| panic!("no {check} in {:#?}", self.list));
        assert_eq!(found["verdict"], verdict, "{found:#}");
        let text = format!("{}\n{}", found["found"].as_str().unwrap(), found["remedy"].as_str().unwrap_or_default());
        for word in words {
            assert!(text.contains(word), "no {word:?} in {found:#}");
        }
        self
    }

    fn verdicts(&self, verdict: &str) -> Vec<&str> {
        let those = self.list.iter().filter(|finding| finding["verdict"] == verdict);
        those.map(|finding| finding["check"].as_str().unwrap()).collect()
    }
}

#[test]
fn a_machine_that_is_ready() {
    let findings = Machine::ready().findings(Some(&config()));
    assert_eq!(findings.code, Some(0));
    assert_eq!(findings.verdicts("warn"), Vec::<&str>::new());
    findings
        .says("instructions", "ok", &["x86-64-v3", "Xeon"])
        .says("isolation", "ok", &["2"])
        .says("smt", "ok", &["siblings of 2 are kept idle"])
        .says("interrupts", "ok", &[])
        .says("huge-pages", "ok", &["8 of 1 GiB (8 free)"])
        .says("huge-pages-by-node", "ok", &["node 0: 4 of 1 GiB"])
        .says("iommu", "ok", &["3 groups"])
        // 8 lanes of 8 GT/s, 128 of 130 bits: 63.0 Gbit/s.
        .says("0000:3b:00.0 device", "ok", &["ports.lan", "8086:1572", "vfio-pci", "node 0", "8 GT/s x8 (63 Gbit/s)"])
        .says("0000:3b:00.0 pcie-link", "ok", &[])
        .says("0000:3b:00.0 iommu-group", "ok", &["group 41"])
        .says("0000:5e:00.0 numa", "ok", &["node 0"])
        .says("0000:5e:00.0 device-package", "ok", &["/lib/firmware/intel/ice/ddp/ice.pkg"])
        .says(
            "0000:04:00.0 device",
            "not-applicable",
            &["igb as eno1 with routes of the kernel", "no port of the file"],
        );
}

/// The page shows what the program says.
#[test]
fn the_page_shows_this_machine() {
    let machine = Machine::ready();
    let file = machine.0.path().join("turnpike.yaml");
    fs::write(&file, config()).unwrap();
    let output = machine.doctor(&["-c", file.to_str().unwrap()]);
    let report = String::from_utf8(output.stdout).unwrap();
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bare-metal.md")).unwrap();
    assert!(page.contains(&report), "docs/bare-metal.md lacks this report:\n{report}");
}

/// Everything that keeps Turnpike from a machine's devices, at once.
#[test]
fn a_machine_that_is_not_ready() {
    let machine = Machine::ready();
    machine
        .pages("sys/kernel/mm/hugepages", 1_048_576, 0)
        .remove("sys/kernel/iommu_groups")
        .remove("sys/bus/pci/drivers")
        .remove("dev/vfio")
        .remove("sys/bus/pci/devices/0000:5e:00.0")
        .remove("lib")
        .file("proc/self/limits", LIMITS.replace("LIMIT", "8388608"))
        .link("sys/bus/pci/devices/0000:3b:00.0/driver", "../../../../bus/pci/drivers/i40e")
        .file("sys/bus/pci/devices/0000:3b:00.0/net/enp59s0/mtu", "1500")
        .file("sys/devices/system/cpu/online", "0-1,3-15");
    let findings = machine.findings(Some(&config()));
    assert_eq!(findings.code, Some(1));
    findings
        // 2 GiB are 1,024 pages of 2 MiB, or two of 1 GiB.
        .says(
            "huge-pages",
            "fail",
            &["wants 2 GiB", "`echo 1024 > /sys/kernel/mm/hugepages/hugepages-2048kB/", "hugepagesz=1G hugepages=2`"],
        )
        .says("locked-memory", "fail", &["8192 KiB", "ulimit -l unlimited", "LimitMEMLOCK=infinity"])
        .says("iommu", "fail", &["VT-d", "`intel_iommu=on iommu=pt`"])
        .says("vfio", "fail", &["`modprobe vfio-pci`"])
        .says("worker-cores", "fail", &["2 is not on", "boot.cpu.workers among 0-1,3-15"])
        .says("0000:3b:00.0 device", "fail", &["i40e as enp59s0", "turnpike-bind@0000:3b:00.0", "--bind=vfio-pci"])
        .says("0000:5e:00.0 device", "fail", &["ports.wan", "no such", "0000:04:00.0, 0000:3b:00.0"]);
    let fails = findings.verdicts("fail");
    assert_eq!(fails.len(), 7, "{fails:?}");
}

/// Everything that only costs speed.
#[test]
fn a_machine_that_could_be_faster() {
    let machine = Machine::ready();
    let state = "sys/devices/system/cpu/cpu5/cpuidle/state2/disable";
    machine
        .file("proc/cmdline", "root=/dev/sda1 ro quiet intel_iommu=on")
        .file("proc/cpuinfo", "vendor_id\t: GenuineIntel\nmodel name\t: QEMU Virtual CPU\nflags\t\t: sse4_2 popcnt avx")
        .file("sys/devices/system/cpu/isolated", "")
        .file("sys/devices/system/cpu/nohz_full", "(null)")
        .file("sys/devices/system/cpu/cpu5/cpufreq/scaling_governor", "schedutil")
        .file(state, "0")
        .file("proc/irq/31/effective_affinity_list", "5")
        .file("proc/irq/32/smp_affinity_list", "4-7")
        .file("proc/sys/kernel/nmi_watchdog", "1")
        .pages("sys/devices/system/node/node1/hugepages", 1_048_576, 0)
        .mode("dev/vfio/41", 0o600)
        .nic("0000:3b:00.0", ["0x8086", "0x1572"], Some("vfio-pci"), "0", "41", 4)
        .remove("lib");
    let findings = machine.findings(Some(&config().replace("workers: [2]", "workers: [5]")));
    assert_eq!(findings.code, Some(0));
    findings
        .says("instructions", "warn", &["avx2, bmi1, bmi2, f16c, fma, movbe, abm"])
        .says("isolation", "warn", &["`isolcpus=5 nohz_full=5 rcu_nocbs=5`"])
        .says("smt", "warn", &["5 with 13", "nosmt"])
        .says("governor", "warn", &["schedutil on 5", "cpupower -c 5 frequency-set -g performance"])
        .says("idle-states", "warn", &["C6 takes 133 us", "intel_idle.max_cstate=1"])
        .says("interrupts", "warn", &["2 may interrupt 5: IRQ 31, 32", "irqaffinity=0-4,6-15`"])
        .says("nmi-watchdog", "warn", &["`sysctl kernel.nmi_watchdog=0`"])
        // The worker is at node 1 and the ports are at node 0: 1 GiB each, which are 512 pages of 2 MiB.
        .says(
            "huge-pages-by-node",
            "warn",
            &["node 1 has fewer than 1 GiB", "`echo 512 > /sys/devices/system/node/node1/"],
        )
        .says("iommu-mode", "warn", &["`iommu=pt`"])
        .says("vfio-permissions", "warn", &["/dev/vfio/41 (mode 0600)", "udevadm trigger"])
        // 4 lanes instead of 8: 31.5 Gbit/s.
        .says("0000:3b:00.0 pcie-link", "warn", &["x4 (32 Gbit/s)", "x8 (63 Gbit/s)"])
        .says("0000:3b:00.0 numa", "warn", &["node 0, and the workers' 5", "boot.cpu.workers among 0-3,8-11"])
        .says("0000:5e:00.0 device-package", "warn", &["ice.pkg", "firmware-misc-nonfree"]);
    assert_eq!(findings.verdicts("warn").len(), 14, "{:?}", findings.verdicts("warn"));
}

#[test]
fn devices_that_must_not_be_taken_or_need_not() {
    let machine = Machine::ready();
    // The port of the machine's own connection; a group that holds a disk controller; a NIC that stays with the kernel.
    machine
        .link("sys/kernel/iommu_groups/41/devices/0000:00:17.0", "../../0000:00:17.0")
        .file("sys/bus/pci/devices/0000:00:17.0/class", "0x010601")
        .link("sys/bus/pci/devices/0000:00:17.0/driver", "../../../../bus/pci/drivers/ahci")
        .link("sys/kernel/iommu_groups/42/devices/0000:5d:00.0", "../../0000:5d:00.0")
        .link("sys/bus/pci/devices/0000:5d:00.0/driver", "../../../../bus/pci/drivers/pcieport")
        .nic("0000:af:00.0", ["0x15b3", "0x1017"], Some("mlx5_core"), "1", "60", 8);
    let findings = machine.findings(Some(&config()));
    findings.says("0000:3b:00.0 iommu-group", "fail", &["0000:00:17.0", "ahci's"]).says(
        "0000:5e:00.0 iommu-group",
        "ok",
        &["group 42"],
    );
    let findings = machine.findings(Some(&config().replace("0000:3b:00.0", "0000:04:00.0")));
    findings.says("0000:04:00.0 device", "fail", &["choose another device", "another connection than eno1"]);
    let findings = machine.findings(Some(&config().replace("0000:3b:00.0", "0000:AF:00.0")));
    findings
        .says("0000:af:00.0 device", "ok", &["stays with the kernel's driver"])
        .says("0000:af:00.0 iommu-group", "not-applicable", &[])
        .says("0000:af:00.0 numa", "warn", &["node 1, and the workers' 2"]);
}

/// A file that needs none of it is not told that the machine is unfit.
#[test]
fn virtual_ports_need_no_bare_metal() {
    let config = include_str!("../../configs/minimal.yaml");
    let machine = Machine::new();
    machine.file("sys/devices/system/cpu/online", "0-1");
    let findings = machine.findings(Some(config));
    assert_eq!(findings.code, Some(0));
    findings.says("huge-pages", "not-applicable", &[]).says(
        "iommu",
        "not-applicable",
        &["no port of the file is a PCI device"],
    );
    // On real devices ordinary pages are slow, not wrong.
    let config = config.replace("device: \"net_af_packet0,iface=eth1\"", "pci: \"0000:3b:00.0\"");
    Machine::ready().findings(Some(&config)).says("huge-pages", "warn", &["boot.memory.hugepages"]);
}

#[test]
fn without_a_file_the_machine_is_judged_as_it_is() {
    let machine = Machine::ready();
    let findings = machine.findings(None);
    assert_eq!(findings.code, Some(0));
    findings.says("isolation", "ok", &["2,10"]).says("0000:3b:00.0 device", "ok", &["8086:1572"]).says(
        "0000:04:00.0 device",
        "not-applicable",
        &["not DPDK's"],
    );
    machine
        .remove("sys/bus/pci/devices/0000:3b:00.0")
        .link("sys/bus/pci/devices/0000:5e:00.0/driver", "../../../../bus/pci/drivers/ice");
    // The one that carries the machine's own connection is not offered.
    machine.findings(None).says("devices", "fail", &["none of 2", "--bind=vfio-pci 0000:5e:00.0"]);
    // Nothing can be read at all.
    let findings = Machine::new().findings(None);
    assert_eq!(findings.code, Some(1));
    findings.says("devices", "fail", &["no network device"]).says("iommu", "fail", &[]).says("vfio", "fail", &[]);
}

#[test]
fn this_machine() {
    let findings = Findings::read(&doctor(&["--json"]));
    assert!(findings.list.len() > 10);
    let output = doctor(&[]);
    assert_eq!(output.status.code(), findings.code);
    let text = String::from_utf8(output.stdout).unwrap();
    let fails = findings.verdicts("fail").len();
    assert!(text.contains(&format!("{fails} to change before it can work")), "{text}");
    assert_eq!(text.matches("\n  FAIL  ").count(), fails);
}

/// Devices of DPDK itself: what they can do is in their drivers' sources (net_null: a RETA of 128 entries).
#[test]
fn ports_are_asked_through_dpdk() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("turnpike.yaml");
    let config = r#"
version: 1
boot: {memory: {size: 128M}, packets: 8191}
ports:
  lan: {device: net_ring0}
  wan: {device: net_null0}
interfaces:
  inside: {port: lan, zone: inside, addresses: [192.168.1.1/24]}
  uplink: {port: wan, zone: outside, addresses: [198.51.100.2/24]}
metrics: {listen: off}
"#;
    fs::write(&file, config).unwrap();
    let file = file.to_str().unwrap();
    Findings::read(&doctor(&["--json", "-c", file, "--probe"]))
        .says("lan open", "ok", &["by net_ring"])
        .says("lan hashing", "not-applicable", &[])
        .says("wan open", "ok", &["by net_null"])
        .says("wan link", "ok", &["up"])
        .says("wan hashing", "ok", &["ipv4-udp", "ipv6-tcp", "table of 128"])
        .says("wan steering", "not-applicable", &["IPv4 by source: no", "in software"])
        .says("wan flow-rules", "ok", &["none"])
        .says("wan lro", "ok", &["merges nothing"]);

    fs::write(file, config.replace("net_null0", "net_nosuch0")).unwrap();
    let findings = Findings::read(&doctor(&["--json", "-c", file, "--probe"]));
    assert_eq!(findings.code, Some(1));
    findings.says("open", "fail", &["ports.wan: device `net_nosuch0`"]);

    // A file that is wrong is a wrong file, not an unfit machine; and there is nothing to probe without one.
    fs::write(file, "version: 1").unwrap();
    assert_eq!(doctor(&["-c", file]).status.code(), Some(2));
    assert_eq!(doctor(&["--probe"]).status.code(), Some(2));
}
