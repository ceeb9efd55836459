// SPDX-License-Identifier: Apache-2.0
// An oops that kills one process and leaves the machine running: any write to /proc/oops follows a null pointer.
// Debian builds its kernels without LKDTM, and since 5.x sysrq-c panics, whatever kernel.panic_on_oops says.
#include <linux/module.h>
#include <linux/proc_fs.h>

static ssize_t oops_write(struct file *file, const char __user *buffer, size_t count, loff_t *position)
{
	*(volatile int *)NULL = 0;
	return count;
}

static const struct proc_ops oops_ops = { .proc_write = oops_write };

static int __init oops_init(void)
{
	return proc_create("oops", 0200, NULL, &oops_ops) ? 0 : -ENOMEM;
}
module_init(oops_init);

MODULE_DESCRIPTION("oops on demand");
MODULE_LICENSE("Apache-2.0"); // a word the kernel does not know: the oops says "Tainted: P", and nothing else changes
