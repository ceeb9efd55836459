# SPDX-License-Identifier: Apache-2.0
"""First lines of what the processor noticed: faults, traps, overflown stacks, hardware errors; by architecture."""

from pstored.oops.rule import AT, CODE, FN, ON_CPU, TRAP, WHO, Rule

# Most specific first among the rules of one anchor.
FAULTS: tuple[Rule, ...] = (
    # -- faults: x86
    Rule(
        b"BUG",
        "null-deref",
        rb"BUG: (?:unable to handle )?kernel NULL pointer dereference(?:,? address:| at) " + AT,
        "arch/x86/mm/fault.c",
    ),
    Rule(b"BUG", "null-deref", rb"BUG: (?:unable to handle )?kernel NULL pointer dereference", "arch/x86/mm/fault.c"),
    Rule(
        b"BUG",
        "paging-fault",
        rb"BUG: unable to handle (?:page fault for address:|kernel paging request at) " + AT,
        "arch/x86/mm/fault.c",
    ),
    Rule(b"BUG", "paging-fault", rb"BUG: unable to handle (?:page fault|kernel)", "arch/x86/mm/fault.c"),
    # -- faults: powerpc
    Rule(
        b"BUG", "null-deref", rb"BUG: Kernel NULL pointer dereference(?: on \w+)? at " + AT, "arch/powerpc/mm/fault.c"
    ),
    Rule(b"BUG", "null-deref", rb"BUG: Kernel NULL pointer dereference", "arch/powerpc/mm/fault.c"),
    Rule(
        b"BUG",
        "unhandled-fault",
        rb"BUG: Unable to handle (?:kernel )?unaligned access(?: at " + AT + rb")?",
        "arch/powerpc/mm/fault.c",
    ),
    Rule(
        b"BUG",
        "paging-fault",
        rb"BUG: Unable to handle (?:kernel|unknown paging)(?:[^\n]{1,60}? at " + AT + rb")?",
        "arch/powerpc/mm/fault.c",
    ),
    # -- faults: arm, arm64, riscv, s390, mips, loongarch, sparc, alpha, powerpc up to 5.1, x86 up to 2.6
    Rule(
        b"Unable to",
        "null-deref",
        ON_CPU + rb"Unable to handle kernel NULL pointer dereference(?:[^\n]{0,60}? at (?:virtual )?"
        rb"(?:address )?" + AT + rb")?",
        "arch/*/mm/fault.c",
    ),
    Rule(
        b"Unable to",
        "unhandled-fault",
        rb"Unable to handle kernel unaligned access",
        "arch/riscv/kernel/traps_misaligned.c",
    ),
    Rule(
        b"Unable to",
        "unhandled-fault",
        rb"Unable to handle kernel paging request for unaligned access(?: at address " + AT + rb")?",
        "arch/powerpc/mm/fault.c, up to 5.1",
    ),
    Rule(
        b"Unable to",
        "unhandled-fault",
        rb"Unable to handle kernel [\w ()-]{0,60}?(?:fault|abort\)?|error|unknown \d\d?) at virtual address " + AT,
        "arch/arm64/mm/fault.c, fault_info",
    ),
    Rule(
        b"Unable to",
        "paging-fault",
        ON_CPU + rb"Unable to handle (?:kernel )?(?:[a-z-]{1,20} ){1,9}(?:for (?:data|instruction) )?(?:at "
        rb"|in )?(?:virtual )?(?:user )?(?:address )?" + AT,
        "arch/*/mm/fault.c",
    ),
    Rule(
        b"Unable to",
        "paging-fault",
        ON_CPU + rb"Unable to handle kernel (?:paging request|pointer dereference|access|instruction fetch|data"
        rb"|write|read|execution|execute)",
        "arch/*/mm/fault.c",
    ),
    Rule(
        b"Fault in ", "paging-fault", rb"Fault in \S+ space mode while using kernel ASCE", "arch/s390/mm/fault.c", TRAP
    ),
    Rule(
        b"Unhandled",
        "unhandled-fault",
        rb"Unhandled (?:fault|prefetch abort): [^\n]{1,80}? at " + AT,
        "arch/arm/mm/fault.c",
    ),
    Rule(b"Unhandled", "unhandled-fault", rb"Unhandled (?:fault|prefetch abort): ", "arch/arm/mm/fault.c"),
    Rule(b"Unhandled", "unhandled-fault", rb"Unhandled kernel unaligned access", "arch/mips/kernel/unaligned.c", TRAP),
    Rule(b"Alignment trap", "unhandled-fault", rb"Alignment trap: not handling instruction", "arch/arm/mm/alignment.c"),
    Rule(b"SError", "unhandled-fault", rb"SError Interrupt on CPU(?P<cpu>\d{1,5})", "arch/arm64/kernel/traps.c"),
    Rule(
        b"Bad",
        "unhandled-fault",
        rb"Bad mode in [\w ]{1,30} detected on CPU(?P<cpu>\d{1,5})[^\n]{0,60}SError",
        "arch/arm64/kernel/traps.c",
    ),
    Rule(b"Bad", "oops", rb"Bad mode in [\w ]{1,30} detected", "arch/arm64/kernel/traps.c"),
    Rule(
        b"Unhandled",
        "oops",
        rb"Unhandled \d\d-bit el\w{1,4} \w{1,10} exception on CPU(?P<cpu>\d{1,5})",
        "arch/arm64/kernel/traps.c, since 5.13",
    ),
    Rule(
        b"Kernel ",
        "unhandled-fault",
        rb"Kernel unaligned access at TPC\[[0-9a-f]{1,16}\] (?:" + FN + rb")?",
        "arch/sparc/kernel/unaligned_64.c",
    ),
    Rule(
        b"Kernel ",
        "paging-fault",
        WHO + rb"Kernel Fault: Code=\d+[^\n]{0,80}?\(?[Aa]ddr=" + AT,
        "arch/parisc/kernel/traps.c",
    ),
    Rule(b"Kernel ", "paging-fault", WHO + rb"Kernel Fault: ", "arch/parisc/kernel/traps.c", TRAP),
    Rule(
        b"Page fault: ",
        "paging-fault",
        rb"Page fault: (?:bad address|no context|fault above user)",
        "arch/parisc/kernel/traps.c",
    ),
    Rule(
        b"Bad",
        "null-deref",
        rb"Bad Address \(null pointer deref\?\)(?::[^\n]{0,100}? at addr " + AT + rb")?",
        "arch/parisc/kernel/traps.c",
    ),
    Rule(b"Bad", "stack-overflow", rb"Bad kernel stack pointer ", "arch/powerpc/kernel/traps.c"),
    # -- stacks
    Rule(b"BUG", "stack-overflow", rb"BUG: (?:\S{1,20} )?stack guard page was hit", "arch/x86/kernel/dumpstack.c"),
    Rule(
        b"Insufficient",
        "stack-overflow",
        rb"Insufficient stack space to handle exception",
        "arch/arm64/kernel/traps.c, arch/riscv",
    ),
    Rule(
        b"stack overflow",
        "stack-overflow",
        rb"[Kk]ernel stack overflow",
        "arch/x86/kernel/traps.c, arch/s390/kernel/nmi.c",
        TRAP,
    ),
    Rule(b"[#", "stack-overflow", rb"(?:Oops: )?stack guard page" + CODE, "arch/x86/kernel/traps.c", TRAP),
    Rule(b"Internal", "stack-overflow", rb"Internal error: kernel stack overflow", "arch/arm/kernel/traps.c", TRAP),
    # -- traps: die() and its like
    Rule(b"PANIC: ", "double-fault", rb"(?:traps: )?PANIC: double fault", "arch/x86/kernel/traps.c", TRAP),
    Rule(b"[#", "double-fault", rb"(?:traps: )?(?:Oops: )?double fault" + CODE, "arch/x86/kernel/traps.c", TRAP),
    Rule(
        b"rotection fault",
        "gpf",
        rb"(?:traps: )?(?:Oops: )?(?:segment-related )?general protection fault"
        rb"(?:[^\n]{0,60} address 0x(?P<address>[0-9a-f]{1,16}))?",
        "arch/x86/kernel/traps.c",
        TRAP,
    ),
    Rule(b"[#", "gpf", rb"(?:Oops: )?stack segment" + CODE, "arch/x86/kernel/traps.c", TRAP),
    Rule(
        b"[#",
        "divide-error",
        rb"(?:Oops: )?(?:divide[ _]error|(?:fixpoint|decimal) divide exception)" + CODE,
        "arch/x86/kernel/traps.c, arch/s390/kernel/traps.c",
        TRAP,
    ),
    Rule(b"[#", "invalid-opcode", rb"(?:Oops: )?invalid opcode" + CODE, "arch/x86/kernel/traps.c", TRAP),
    Rule(b"[#", "invalid-opcode", rb"illegal op(?:eration|code)" + CODE, "arch/s390/kernel/traps.c", TRAP),
    Rule(
        b"Oops",
        "invalid-opcode",
        rb"(?:Internal error: )?Oops - (?:[uU]ndefined|illegal) instruction",
        "arch/arm/kernel/traps.c, arch/arm64/kernel/traps.c, arch/riscv/kernel/traps.c",
        TRAP,
    ),
    Rule(b"Oops", "bug-on", rb"(?:Internal error: )?Oops - BUG", "arch/arm/kernel/traps.c", TRAP),
    Rule(b"Oops", "kasan-other", rb"Internal error: Oops - KASAN: ", "arch/arm64/kernel/traps.c", TRAP),
    Rule(
        b"Oops",
        "paging-fault",
        rb"Oops: (?:Kernel access of bad area|Weird page fault)",
        "arch/powerpc/mm/fault.c",
        TRAP,
    ),
    Rule(b"Oops", "mce", rb"Oops: Machine check", "arch/powerpc/kernel/traps.c", TRAP),
    Rule(
        b"Oops",
        "paging-fault",
        rb"Oops - (?:load|store|instruction)[\w (/)]{0,30} access fault",
        "arch/riscv/kernel/traps.c",
        TRAP,
    ),
    Rule(
        b"Oops",
        "unhandled-fault",
        rb"Oops - (?:load|store|instruction)[\w (/)]{0,30} misaligned",
        "arch/riscv/kernel/traps.c",
        TRAP,
    ),
    Rule(
        b" (code ",
        "oops",
        rb"(?P<comm>[^:\n]{1,64}?) \(pid (?P<pid>\d{1,10})\): [\w /-]{1,60} \(code \d{1,5}\)$",
        "arch/parisc/kernel/traps.c: of user space it says where, too",
        TRAP,
    ),
    Rule(
        b"Oops",
        "oops",
        ON_CPU + WHO + rb"(?:Internal error: )?Oops(?: ?\[#|: | - | -?\d)",
        "arch/*/kernel/traps.c",
        TRAP,
    ),
    Rule(
        b"Internal",
        "unhandled-fault",
        rb"Internal error: (?:(?!Oops)[\w ()/-]{1,60}(?:abort|fault|alignment exception|ECC error)\)?:"
        rb"|[\w -]{0,20}SError)",
        "arch/arm64/mm/fault.c",
        TRAP,
    ),
    Rule(b"Internal", "ubsan", rb"Internal error: UBSAN: ", "arch/arm64/kernel/traps.c, since 6.9", TRAP),
    Rule(b"Internal", "oops", rb"Internal", "arch/arm64/kernel/traps.c", TRAP),
    Rule(
        b"[#",
        "bug-on",
        rb"Kernel (?:BUG|bug detected) ?\[#\d",
        "arch/riscv/kernel/traps.c, arch/mips/kernel/traps.c",
        TRAP,
    ),
    Rule(b"[#", "invalid-opcode", rb"Reserved instruction in kernel code ?\[#", "arch/mips/kernel/traps.c", TRAP),
    Rule(b"[#", "unhandled-fault", rb"Kernel ale access ?\[#", "arch/loongarch/kernel/traps.c", TRAP),
    Rule(
        b"[#",
        "oops",
        WHO + rb"(?:Kernel |Break |Trap |FPU |Unexpected )[\w ]{1,60}\[#\d",
        "arch/mips, arch/sparc/kernel/traps_64.c",
        TRAP,
    ),
    Rule(
        b"[#",
        "oops",
        rb"[A-Za-z][\w -]{2,40}: [0-9a-f]{4} (?:ilc:\d )?\[#\d{1,9}\]",
        "arch/x86/kernel/dumpstack.c, arch/s390/kernel/dumpstack.c",
        TRAP,
    ),
    Rule(b"[#", "oops", rb"[A-Za-z][\w :-]{2,60}\[#\d{1,9}\](?: (?:PREEMPT|SMP)|:|$)", "arch/*/kernel/traps.c", TRAP),
    # -- hardware
    Rule(
        b"Machine ",
        "mce",
        rb"(?:mce: )?\[Hardware Error\]: CPU (?P<cpu>\d{1,5}): Machine Check",
        "arch/x86/kernel/cpu/mce/core.c",
    ),
    Rule(
        b"Machine ",
        "mce",
        rb"(?:mce: )?\[Hardware Error\]: Machine check events logged",
        "arch/x86/kernel/cpu/mce/dev-mcelog.c",
    ),
    Rule(
        b"Machine ",
        "mce",
        rb"(?:HARDWARE ERROR\. )?CPU (?P<cpu>\d{1,5}): Machine Check Exception",
        "arch/x86/kernel/cpu/mce, up to 2.6.35",
    ),
    Rule(
        b"Machine ",
        "mce",
        rb"(?:Machine check in kernel mode|(?:High|Low) Priority Machine Check|Machine Check Exception"
        rb"|Severe Machine check|Fatal Machine check)",
        "arch/powerpc, arch/parisc, arch/mips",
    ),
    Rule(
        b"machine check (",
        "mce",
        rb"MCE: CPU(?P<cpu>\d{1,5}): machine check \(",
        "arch/powerpc/kernel/mce.c",
    ),
    Rule(
        b"MCE broadcast",
        "mce",
        rb"mce: CPUs not responding to MCE broadcast",
        "arch/x86/kernel/cpu/mce/core.c",
    ),
    Rule(b"UE ", "mce", rb"EDAC \w{1,20}: \d{1,9} UE ", "drivers/edac/edac_mc.c"),
    Rule(b"Uncorrected", "mce", rb"mce: Uncorrected hardware memory error in ", "arch/x86/kernel/cpu/mce/core.c"),
    Rule(
        b"Hardware Error]",
        "mce",
        rb"(?:mce: |\{\d{1,9}\})?\[Hardware Error\]: ",
        "drivers/firmware/efi/cper.c, arch/x86/kernel/cpu/mce, drivers/edac",
    ),
    Rule(b"nobody cared", "other", rb"irq \d{1,6}: nobody cared", "kernel/irq/spurious.c"),
)
