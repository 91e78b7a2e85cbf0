// Code that is written while it runs: generated, patched, moved, mapped twice, across pages.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef long (*function)(long);

// lea rax, [rdi+imm]; ret
static size_t adder(unsigned char *at, int32_t imm) {
    static const unsigned char code[] = {0x48, 0x8d, 0x87, 0, 0, 0, 0, 0xc3};
    memcpy(at, code, sizeof code);
    memcpy(at + 3, &imm, 4);
    return sizeof code;
}

static void generated(unsigned char *page) {
    long sum = 0;
    for (int i = 0; i < 3000; i++) {
        adder(page + i % 7 * 13, i);
        sum += ((function)(page + i % 7 * 13))(1);
    }
    printf("generated %ld\n", sum);
    // Patched by the caller between calls, one byte only.
    adder(page, 0);
    sum = 0;
    for (int i = 0; i < 256; i++) {
        page[3] = (unsigned char)i;
        sum += ((function)page)(1000);
    }
    printf("patched %ld\n", sum);
}

static void across_pages(unsigned char *page) {
    long sum = 0;
    for (int start = 4096 - 12; start < 4096 + 2; start++) {
        adder(page + start, start);
        sum = sum * 31 + ((function)(page + start))(5);
        // The half on the second page changes.
        page[start + 5] = 1;
        sum = sum * 31 + ((function)(page + start))(5);
    }
    printf("across pages %ld\n", sum);
}

// The code changes the immediate of the instruction right behind the one that writes.
static void patches_itself(unsigned char *page) {
    static const unsigned char code[] = {
        0x31, 0xc0,                               // xor eax, eax
        0x40, 0x88, 0x3d, 0x02, 0x00, 0x00, 0x00, // mov [rip+2], dil
        0x83, 0xc0, 0x01,                         // add eax, 1
        0x83, 0xc0, 0x01,                         // add eax, 1
        0xc3,
    };
    memcpy(page, code, sizeof code);
    long sum = 0;
    for (long i = 0; i < 100; i++) sum = sum * 3 + ((function)page)(i);
    printf("patches itself %ld\n", sum);
    // A string instruction overwrites what follows it.
    static const unsigned char writer[] = {
        0x48, 0x8d, 0x3d, 0x09, 0x00, 0x00, 0x00, // lea rdi, [rip+9]
        0xb0, 0x90,                               // mov al, 0x90
        0xb9, 0x04, 0x00, 0x00, 0x00,             // mov ecx, 4
        0xf3, 0xaa,                               // rep stosb
        0xff, 0xc1, 0xff, 0xc1,                   // inc ecx twice, until overwritten
        0xff, 0xc1, 0x89, 0xc8, 0xc3,             // inc ecx; mov eax, ecx; ret
    };
    memcpy(page + 64, writer, sizeof writer);
    printf("overwrites %ld\n", ((function)(page + 64))(0) & 0xff);
}

static void mapped_twice(void) {
    int file = memfd_create("code", 0);
    if (ftruncate(file, 4096)) return;
    unsigned char *write = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    unsigned char *run = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, file, 0);
    long sum = 0;
    for (int i = 0; i < 1000; i++) {
        adder(write + 32, i * 3);
        sum += ((function)(run + 32))(i);
    }
    printf("mapped twice %ld\n", sum);
    // Through the file as well.
    int32_t imm = 12345;
    if (pwrite(file, &imm, 4, 32 + 3) != 4) return;
    printf("through the file %ld\n", ((function)(run + 32))(0));
}

static sigjmp_buf back;
static void fault(int number) { siglongjmp(back, number); }

static void rights(unsigned char *page) {
    signal(SIGSEGV, fault);
    adder(page, 7);
    for (volatile int round = 0; round < 3; round++) {
        mprotect(page, 4096, PROT_READ | PROT_EXEC);
        printf("run %ld ", ((function)page)(round));
        if (sigsetjmp(back, 1)) printf("no write ");
        else page[3] = 9;
        mprotect(page, 4096, PROT_READ | PROT_WRITE);
        page[3] = (unsigned char)(20 + round);
        if (sigsetjmp(back, 1)) printf("no run\n");
        else printf("run %ld\n", ((function)page)(0));
    }
    mprotect(page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
}

static void moved(unsigned char *page) {
    adder(page, 1000);
    printf("moved %ld", ((function)page)(1));
    unsigned char *other = mremap(page, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, page + 4096 * 8);
    unsigned char *fresh = mmap(page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    adder(fresh, 2000);
    printf(" %ld %ld\n", ((function)other)(1), ((function)fresh)(1));
}

int main(void) {
    unsigned char *page = mmap(0, 16 * 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    generated(page);
    across_pages(page);
    patches_itself(page);
    mapped_twice();
    rights(page);
    moved(page);
    return 0;
}
