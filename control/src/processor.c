/*
 * Whether this processor has the instructions that the program is built from: x86-64-v3's, as the psABI lists them.
 *
 * In C and not in Rust, because .cargo/config.toml has all Rust code of the program built for v3, this check too, and its
 * own instructions would be the first to fault. build.rs compiles this file for the first of all x86-64 processors. It
 * runs as a constructor, before `main` and before any code of Rust's. Only the shared libraries' own constructors come
 * earlier: DPDK's, as Debian builds them, want v2 (SSE 4.2, 2008), and on a processor below that may fault without a word.
 */
#include <cpuid.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LEAF_1_ECX, LEAF_7_EBX, LEAF_EXT_1_ECX, REGISTERS };

static const struct {
	const char *name;
	int reg;
	int bit;
} wanted[] = {
	{ "sse3", LEAF_1_ECX, 0 },    { "ssse3", LEAF_1_ECX, 9 },  { "fma", LEAF_1_ECX, 12 },
	{ "cx16", LEAF_1_ECX, 13 },   { "sse4.1", LEAF_1_ECX, 19 }, { "sse4.2", LEAF_1_ECX, 20 },
	{ "movbe", LEAF_1_ECX, 22 },  { "popcnt", LEAF_1_ECX, 23 }, { "osxsave", LEAF_1_ECX, 27 },
	{ "avx", LEAF_1_ECX, 28 },    { "f16c", LEAF_1_ECX, 29 },   { "bmi1", LEAF_7_EBX, 3 },
	{ "avx2", LEAF_7_EBX, 5 },    { "bmi2", LEAF_7_EBX, 8 },    { "lahf", LEAF_EXT_1_ECX, 0 },
	{ "lzcnt", LEAF_EXT_1_ECX, 5 },
};

/* Whether the kernel keeps the AVX registers over a change of threads: XCR0's bits 1 and 2. Wants osxsave. */
static bool kernel_keeps_avx(void)
{
	unsigned int low, high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (low & 6) == 6;
}

__attribute__((constructor)) static void check_processor(void)
{
	unsigned int eax, ebx, ecx, edx, regs[REGISTERS] = { 0 };
	char missing[256] = "";

	if (__get_cpuid(1, &eax, &ebx, &ecx, &edx))
		regs[LEAF_1_ECX] = ecx;
	if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
		regs[LEAF_7_EBX] = ebx;
	if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx))
		regs[LEAF_EXT_1_ECX] = ecx;
	for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
		if (regs[wanted[i].reg] & 1u << wanted[i].bit)
			continue;
		if (missing[0] != '\0')
			strcat(missing, ", ");
		strcat(missing, wanted[i].name); /* all names together have room */
	}
	if (missing[0] == '\0' && !kernel_keeps_avx())
		strcpy(missing, "avx switched on by the kernel");
	if (missing[0] == '\0')
		return;
	dprintf(STDERR_FILENO,
		"turnpike: this program is built for x86-64-v3 processors, and this one lacks: %s.\n"
		"In a virtual machine, let the guest see the host's processor (`-cpu host`). For an older processor, build it for\n"
		"every x86-64: RUSTFLAGS=\"-C target-cpu=x86-64\" make install\n",
		missing);
	_exit(EXIT_FAILURE);
}
