// A meter that counts into a place of its owner. The owner goes away and the meter is not told.
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/timer.h>

struct meter {
	unsigned long *total;
	unsigned long seen;
};

static unsigned long samples;
struct meter meter = { .total = &samples };

static struct timer_list count_timer, retire_timer;

/* What is seen goes to the owner. */
static noinline __noclone void meter_count(struct meter *m)
{
	m->seen++;
	*m->total += m->seen;
}

static void count(struct timer_list *timer)
{
	meter_count(&meter);
	mod_timer(timer, jiffies + 2);
}

/* The owner is no more. */
static noinline __noclone void meter_retire(struct meter *m)
{
	m->total = NULL;
}

static void retire(struct timer_list *unused)
{
	meter_retire(&meter);
}

static int __init meter_init(void)
{
	timer_setup(&count_timer, count, 0);
	timer_setup(&retire_timer, retire, 0);
	mod_timer(&count_timer, jiffies + 2);
	mod_timer(&retire_timer, jiffies + 25);
	return 0;
}

module_init(meter_init);
MODULE_LICENSE("GPL");
