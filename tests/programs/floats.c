// Floating point: SSE2 and x87 arithmetic, conversions, rounding modes, status flags, libm.
// Everything but x87's own transcendental functions is printed to the last bit.
#include <fenv.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static const char *const texts[] = {
    "0", "-0", "1", "-1.5", "0.1", "1e-310", "4.9e-324", "1e308", "3.14159265358979323846",
    "2.718281828459045", "65537", "-123456789.987654321", "1e22", "inf", "-inf", "nan", "1e-45",
    "16777217", "9007199254740993", "0x1.fffffffffffffp+1023", "1e4000", "3.6e-4951",
};

static void operations(void) {
    for (size_t i = 0; i < COUNT(texts); i++) {
        volatile float f = strtof(texts[i], 0);
        volatile double d = strtod(texts[i], 0);
        volatile long double l = strtold(texts[i], 0);
        printf("%s: %a %a %La | %g %.17g %.21Lg\n", texts[i], f, d, l, f, d, l);
        for (size_t j = 0; j < COUNT(texts); j++) {
            volatile float g = strtof(texts[j], 0);
            volatile double e = strtod(texts[j], 0);
            volatile long double m = strtold(texts[j], 0);
            // The sign of a NaN that an operation makes is fixed, but not which of two it takes.
            double s[] = {f + g, f * g, f / g, d - e, d * e, d / e};
            long double t[] = {l + m, l - m, l * m, l / m};
            for (size_t k = 0; k < COUNT(s); k++) printf(isnan(s[k]) ? "nan " : "%a ", s[k]);
            for (size_t k = 0; k < COUNT(t); k++) printf(isnan(t[k]) ? "nan " : "%La ", t[k]);
            printf("%d%d%d%d\n", d < e, d == e, l > m, isunordered(l, m));
        }
    }
}

static void rounding(void) {
    static const struct { int mode; const char *name; } modes[] = {
        {FE_TONEAREST, "nearest"}, {FE_DOWNWARD, "down"}, {FE_UPWARD, "up"}, {FE_TOWARDZERO, "zero"},
    };
    static const double values[] = {0.5, 1.5, 2.5, -0.5, -1.5, 1e15 + 0.3, 2147483647.5, -7.1, 0.1};
    for (size_t i = 0; i < COUNT(modes); i++) {
        fesetround(modes[i].mode);
        printf("%s %d:", modes[i].name, fegetround() == modes[i].mode);
        for (size_t j = 0; j < COUNT(values); j++) {
            volatile double v = values[j];
            volatile long double l = v;
            volatile float f = v / 3;
            printf(" %a %La %ld %ld %a %La %a", rint(v), rintl(l), lrint(v), lrintl(l), v / 7, l / 7,
                   f);
        }
        volatile double third = 1.0 / 3;
        printf(" | %.3f %.20Lf %a\n", third, (long double)third, sqrt(third));
    }
    fesetround(FE_TONEAREST);
}

static void flags(const char *what) {
    static const struct { int flag; const char *name; } all[] = {
        {FE_INVALID, "invalid"}, {FE_DIVBYZERO, "divbyzero"}, {FE_OVERFLOW, "overflow"},
        {FE_UNDERFLOW, "underflow"}, {FE_INEXACT, "inexact"},
    };
    printf("%s:", what);
    for (size_t i = 0; i < COUNT(all); i++)
        if (fetestexcept(all[i].flag)) printf(" %s", all[i].name);
    printf("\n");
    feclearexcept(FE_ALL_EXCEPT);
}

static void exceptions(void) {
    volatile double zero = 0, one = 1, big = DBL_MAX, tiny = DBL_MIN, three = 3;
    volatile long double lzero = 0, lone = 1, lbig = LDBL_MAX, ltiny = LDBL_MIN, lthree = 3;
    volatile int n;
    feclearexcept(FE_ALL_EXCEPT);
    one / zero, flags("1/0");
    zero / zero, flags("0/0");
    big * big, flags("big*big");
    tiny / three, flags("tiny/3");
    one / three, flags("1/3");
    n = (int)big, flags("(int)big");
    sqrt(-one), flags("sqrt(-1)");
    lone / lzero, flags("1/0 x87");
    lzero / lzero, flags("0/0 x87");
    lbig * lbig, flags("big*big x87");
    ltiny / lthree, flags("tiny/3 x87");
    lone / lthree, flags("1/3 x87");
    (void)n;
}

static void conversions(void) {
    static const double values[] = {0, -1, 1.99, -1.99, 2147483647, 2147483648.0, 4294967295.0,
                                    9.2e18, -9.2e18, 123456789012345.678};
    for (size_t i = 0; i < COUNT(values); i++) {
        volatile double d = values[i];
        volatile long double l = values[i];
        volatile float f = d;
        printf("%ld %ld %lu %ld %a %a", (long)d, (long)l, (unsigned long)fabs(d), (long)f,
               (double)(float)d, (double)(long)d);
        printf(" %La %La\n", (long double)(long)d, (long double)(unsigned long)fabs(d));
    }
    for (int shift = 0; shift < 64; shift++) {
        volatile uint64_t u = UINT64_C(0xfedcba9876543211) >> shift;
        volatile int64_t s = (int64_t)u;
        printf("%a %a %a %a %La %La\n", (float)u, (double)u, (float)s, (double)s, (long double)u,
               (long double)s);
    }
}

static void library(void) {
    // The static functions are compared to the last bit where they use SSE2 only.
    for (int i = -20; i <= 20; i++) {
        double x = i * 0.37;
        printf("%d: %a %a %a %a %a %a %a\n", i, sin(x), cos(x), tan(x), exp(x), atan(x), tanh(x),
               cbrt(x));
        double y = fabs(x) + 0.01;
        printf("   %a %a %a %a %a %a %a\n", log(y), pow(y, x), sqrt(y), log10(y), hypot(x, y),
               fmod(x, 0.3), ldexp(y, i));
        printf("   %a %a %a %a\n", sinf(x), cosf(x), expf(x), powf(y, x));
        long double l = x, m = y;
        printf("   %La %La %La %La %La\n", sqrtl(m), fmodl(l, 0.3L), rintl(l * 100), floorl(l),
               remainderl(l, 0.7L));
        printf("   %.15Lg %.15Lg %.15Lg %.15Lg %.15Lg %.15Lg\n", sinl(l), cosl(l), expl(l), logl(m),
               powl(m, l), atan2l(l, m));
    }
    // The hard cases of argument reduction.
    printf("%a %a %a\n", sin(1e22), cos(6381956970095103.0 * 0x1p+797), tan(1e300));
    printf("%.15Lg %.15Lg\n", sinl(1e19L), cosl(1e4000L));
}

static void printing(void) {
    printf("%.50Lf\n%.40Lf\n%Lf\n", 0.1L, sqrtl(2), LDBL_MAX);
    printf("%.0f %.3e %g %a\n", DBL_MAX, DBL_MIN, 1e100 / 3, 1.0 / 3);
    double sum = 0, product = 1, harmonic = 0;
    long double exact = 0;
    for (int i = 1; i <= 200000; i++) {
        sum += 1.0 / i, exact += 1.0L / i;
        product *= 1 + 1e-6 / i;
        harmonic = harmonic * 0.999 + sin(i);
    }
    printf("%a %La %a %a\n", sum, exact, product, harmonic);
}

int main(void) {
    operations();
    rounding();
    exceptions();
    conversions();
    library();
    printing();
    return 0;
}
