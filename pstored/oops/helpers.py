# SPDX-License-Identifier: Apache-2.0
"""Functions that are not to blame where they stand: they do what their caller asks, or only report.

The kernel dies in memcpy() or in list_del() because of what it was given, and a trace begins with the functions that
print it.  Tables of names by what they are for; ``*`` stands for any ending.  Names are compared without leading
underscores and without what a compiler or an architecture adds.
"""

from collections.abc import Callable
from enum import Enum
from functools import cache, lru_cache

from pstored.oops.names import readable
from pstored.oops.words import Names, compile_names


class Helper(Enum):
    """What a group of functions is for."""

    REPORT = "prints what happened"
    TRAP = "catches what happened"
    SANITIZER = "checks memory accesses for the compiler"
    LOCK = "takes, releases or checks a lock"
    MEMORY = "copies or compares what it is given"
    LIST = "links what it is given, or counts references to it"
    PRINT = "formats and prints"
    DEFERRED = "waits for or cancels deferred work"
    DEVICE = "the driver model's part of a driver's life"
    SLEEP = "checks whether one may sleep, or sleeps"
    WAIT = "waits"
    ALLOCATOR = "gives and takes objects"
    PAGES = "gives and takes pages"
    ALLOCATES = "is named after what it allocates"
    SOCKET = "locks a socket"
    KTHREAD = "calls what was queued or started"
    RCU = "read-copy-update"


_NAMES: dict[Helper, Names] = {
    Helper.REPORT: (
        (
            "lib/dump_stack.c, arch/*/kernel/dumpstack.c",
            """
            dump_stack* dump_backtrace* show_stack* show_regs* show_trace* unwind_backtrace walk_stackframe
            arch_dump_stack* print_tainted stack_trace_* save_stack* arch_stack_walk* print_stack_trace show_opcodes
            __show_regs sched_show_task
            """,
        ),
        (
            "kernel/panic.c",
            """
            panic vpanic nmi_panic warn warn_* check_panic_on_warn oops_begin oops_end oops_enter oops_exit
            oops_may_print add_taint stack_chk_fail fortify_panic
            usercopy_abort do_warn_slowpath* skb_panic skb_over_panic skb_under_panic skb_put skb_push reiserfs_panic
            ext4_panic might_sleep might_fault seqprop_assert* local_bh_enable* local_bh_disable*
            """,
        ),
        (
            "rust/helpers, rust/core",
            """
            rust_helper_BUG rust_begin_unwind panic_fmt panic_const_* panic_nounwind* panic_bounds_check panic_display
            unwrap_failed expect_failed
            """,
        ),
        ("lib/bug.c", "report_bug* fixup_bug* handle_bug* bug_handler is_valid_bugaddr"),
        (
            "mm/page_alloc.c, mm/slub.c",
            """
            bad_page* warn_alloc* print_trailer object_err slab_err slab_bug slab_fix check_object* print_section
            print_page_info check_slab on_freelist free_debug_processing alloc_debug_processing check_bytes_and_report
            slab_pad_check free_consistency_checks alloc_consistency_checks init_object
            """,
        ),
        (
            "lib/nmi_backtrace.c, kernel/rcu/tree_stall.h",
            """
            nmi_trigger_cpumask_backtrace nmi_cpu_backtrace* arch_trigger_cpumask_backtrace trigger_*_backtrace
            rcu_dump_cpu_stacks* print_cpu_stall* print_other_cpu_stall* check_cpu_stall* rcu_pending
            rcu_check_callbacks* rcu_sched_clock_irq* dump_cpu_task
            """,
        ),
    ),
    Helper.TRAP: (
        (
            "arch/x86/kernel/traps.c",
            """
            die die_* do_trap* do_error_trap do_invalid_op invalid_op do_general_protection general_protection
            do_divide_error divide_error do_double_fault double_fault do_int3 int3 do_stack_segment stack_segment
            error_code error_entry error_exit common_exception exc_* asm_exc_* math_error do_coprocessor_error
            do_simd* xen_failsafe* handle_stack_overflow handle_invalid_op sysvec_* paranoid_*
            """,
        ),
        (
            "arch/x86/mm/fault.c",
            """
            page_fault page_fault_oops do_page_fault async_page_fault do_async_page_fault trace_do_page_fault
            trace_page_fault bad_area* no_context do_user_addr_fault do_kern_addr_fault kernelmode_fixup_or_oops
            handle_page_fault spurious_fault mm_fault_error vmalloc_fault* is_prefetch* pgtable_bad fixup_exception
            """,
        ),
        (
            "arch/arm/kernel, arch/arm/mm",
            """
            do_undefinstr und_svc* und_fault und_svc_finish do_DataAbort dabt_svc* do_PrefetchAbort pabt_svc*
            do_bad_area do_kernel_fault do_translation_fault do_sect_fault do_bad do_alignment* bug_trap
            arm_notify_die
            """,
        ),
        (
            "arch/arm64/kernel, arch/arm64/mm",
            """
            el1_* el1h_64_* el1t_64_* do_mem_abort do_debug_exception brk_handler call_break_hook do_el1_* do_undef
            do_serror arm64_serror_panic do_alignment_fault do_tag_check_fault do_tag_recovery do_sea bad_mode
            bad_el0_sync panic_bad_stack handle_bad_stack vectors arm64_notify_die bug_brk_handler early_brk64
            do_sp_pc_abort force_signal_inject arm64_force_sig_fault call_undef_hook kernel_exception do_el0_*
            """,
        ),
        (
            "arch/powerpc/kernel, arch/powerpc/mm",
            """
            program_check* do_program_check handle_program_check data_access* instruction_access* bad_page_fault*
            do_hash_fault hash__do_page_fault alignment_common* alignment_exception exception exception_common
            machine_check_* unrecoverable_exception interrupt_return* ret_from_except* handle_interrupt
            """,
        ),
        (
            "arch/s390",
            """
            pgm_check* do_pgm_check do_protection_exception do_dat_exception do_asce_exception illegal_op
            monitor_event_exception do_report_trap default_trap_handler do_no_context do_exception
            translation_specification_exception addressing_exception
            """,
        ),
        (
            "arch/riscv, arch/mips, arch/sparc, arch/parisc, arch/loongarch",
            """
            handle_exception ret_from_exception do_bp do_ade do_ri do_watch do_tlbl handle_tlbl handle_tlbs
            handle_ade* handle_ri* tlb_do_page_fault_* do_sparc64_fault sparc64_realfault_common unhandled_fault
            parisc_terminate handle_interruption intr_check_sig bad_trap etrap* rtrap* die_if_kernel
            kernel_unaligned_trap bad_kernel_pc* do_kernel_bug
            """,
        ),
    ),
    Helper.SANITIZER: (
        (
            "mm/kasan",
            """
            kasan_report* kasan_check* kasan_byte_accessible kasan_poison* kasan_unpoison* kasan_slab* kasan_kmalloc*
            kasan_krealloc* kasan_kfree* kasan_mempool* kasan_object_err kasan_save_* kasan_set_* kasan_record_aux*
            kasan_start_report kasan_end_report kasan_die* kasan_non_canonical* kasan_tag* kasan_complete*
            kasan_bitops* asan* hwasan* check_memory_region* memory_is_poisoned* print_address_description*
            print_report print_error_description describe_* end_report start_report report_* complete_report_info
            quarantine_* qlist_* object_err read_word_at_a_time addr_has_*
            """,
        ),
        ("mm/kmsan", "kmsan* msan*"),
        ("kernel/kcsan", "kcsan* tsan* find_watchpoint check_access"),
        ("mm/kfence", "kfence*"),
        ("lib/ubsan.c", "ubsan* handle_overflow val_to_string *_handle_*"),
        ("kernel/kcov.c", "sanitizer_* write_comp_data kcov* canonicalize_ip check_kcov_mode"),
        (
            "kernel/stackleak.c, arch/x86/lib/retpoline.S",
            """
            stackleak_* x86_indirect_thunk* indirect_thunk* x86_return_thunk fentry mcount ftrace_*caller
            return_to_handler
            """,
        ),
    ),
    Helper.LOCK: (
        (
            "kernel/locking/lockdep.c",
            """
            lock_acquire* lock_release* lock_acquired lock_contended lock_downgrade lock_set_class lock_is_held*
            lock_pin_lock lock_unpin_lock lockdep* mark_lock* mark_held_locks* mark_irqflags validate_chain*
            check_noncircular check_prev* check_usage* check_irq_usage check_path check_deadlock* check_chain_key
            register_lock_class look_up_lock_class lookup_chain_cache* add_chain* hlock_class find_held_lock
            match_held_lock reacquire_held_locks save_trace assign_lock_key is_dynamic_key static_obj lock_class_key*
            print_circular_bug* print_deadlock_bug* print_usage_bug* print_bad_irq_dependency*
            print_irq_inversion_bug* print_unlock_imbalance_bug* print_freed_lock_bug* print_lock_invalid_wait_context
            print_held_locks_bug print_collision print_shortest_lock* print_lock* debug_check_no_locks* debug_show_*
            sys_exit_lockdep* trace_hardirqs_* trace_softirqs_* bfs* check_redundant check_no_collision nested_lock*
            lock_*_bug print_lock_nested_lock_not_held check_wait_context zap_class verify_lock_unused inc_chains
            check_lock_*
            """,
        ),
        (
            "kernel/locking/spinlock.c, qspinlock.c",
            """
            spin_lock* spin_trylock* spin_unlock* spin_bug spin_dump spin_release* raw_spin_* task_rq_lock*
            task_rq_unlock rq_lock* double_rq_lock* raw_read_* raw_write_* read_lock* read_unlock* read_trylock*
            write_lock* write_unlock* write_trylock* do_raw_* debug_spin_* debug_write_* debug_read_* rwlock_bug
            arch_spin_* arch_read_* arch_write_* queued_* native_queued_* pv_queued_* kvm_spin_lock ticket_spin_*
            bit_spin_* paravirt_spin* xen_qlock_wait lock_torture*
            """,
        ),
        (
            "kernel/locking/mutex.c, rwsem.c, semaphore.c",
            """
            mutex_* ww_mutex_* debug_mutex_* down down_* up up_* rwsem_* call_rwsem_* osq_* percpu_down_* percpu_up_*
            percpu_rwsem_* optimistic_spin* rtlock_* rt_spin_* rt_mutex_* rt_read_* rt_write_* rwbase_* wake_up_q
            rwsem_down_* rwlock_* task_blocks_on_rt_mutex fixup_rt_mutex_*
            """,
        ),
        ("kernel/sched/wait.c", "wake_up_bit wake_up_common* wake_up_sync* wake_up wake_up_locked* wake_up_klogd*"),
    ),
    Helper.MEMORY: (
        (
            "lib/string.c, arch/*/lib",
            """
            memcpy* memset* memmove* memcmp* memchr* memscan bcmp memcpy_* memzero* mmioset mmiocpy strcmp strncmp
            strcasecmp strncasecmp strcpy* strncpy* strlcpy* strscpy* sized_strscpy strlen* strnlen* strchr* strrchr
            strnchr* strstr strnstr strcat strncat strlcat strsep strspn strcspn strpbrk strreplace strim skip_spaces
            pi_mem* pi_str* arch_memcpy* clear_page* copy_page* copypage* sysfs_streq
            """,
        ),
        (
            "lib/usercopy.c, arch/*/lib",
            """
            copy_to_user* copy_from_user* copy_in_user* copy_user* copy_from_kernel* copy_to_kernel* copy_overflow
            raw_copy_* arch_copy_* get_user* put_user* strncpy_from_user strnlen_user strlen_user clear_user*
            copy_to_iter* copy_from_iter* copyout* copyin* iterate_and_advance* copy_mc_* csum_partial*
            csum_and_copy_* probe_kernel_* instrument_* unlock_page folio_unlock check_object_size check_heap_object
            check_stack_object usercopy_warn usercopy_* csum_tcpudp* might_fault rep_movs* rep_stos* fault_in_*
            copy_page_to_iter* copy_page_from_iter*
            """,
        ),
        (
            "lib/crc*.c, lib/crypto, crypto",
            """
            crc16* crc32* crc32c* crc_* aes_encrypt aes_decrypt aes_expandkey xxh32* xxh64* siphash_* jhash*
            """,
        ),
    ),
    Helper.LIST: (
        (
            "lib/list_debug.c, lib/plist.c",
            """
            list_add* list_del* list_replace* list_move* list_splice* list_cut* list_empty* plist_* list_*valid*
            hlist_add* hlist_del*
            """,
        ),
        (
            "lib/rbtree.c, lib/klist.c, lib/xarray.c, lib/rhashtable.c",
            """
            rb_erase* rb_insert* rb_next rb_prev rb_first* klist_* rhashtable_* rht_* llist_*
            """,
        ),
        (
            "lib/find_bit.c, lib/bitmap.c, arch/*/include/asm/bitops.h",
            """
            find_next_* find_first_* find_last_bit bitmap_* test_and_* test_bit set_bit clear_bit change_bit
            arch_test_and_*
            """,
        ),
        ("lib/refcount.c, include/linux/refcount.h", "refcount_* kref_* refcount_dec_and_* atomic_dec_and_lock* iput"),
        (
            "lib/debugobjects.c",
            """
            debug_object* debug_check_no_obj* debug_print_object debug_objects* debug_timer* debug_work* debug_rcu*
            debug_hrtimer* work_is_static_object timer_is_static_object stub_timer fixup_*_state *_fixup_activate
            *_fixup_init *_fixup_free
            """,
        ),
    ),
    Helper.PRINT: (
        (
            "lib/vsprintf.c",
            """
            vsnprintf snprintf scnprintf vscnprintf sprintf vsprintf string string_nocheck pointer number
            symbol_string format_decode hex_string ip4_addr_string* ip6_addr_string* ip6_compressed_string ip4_string
            ip6_string ip_addr_string mac_address_string va_format uuid_string dentry_name kasprintf kvasprintf*
            bstr_printf vbin_printf widen_string check_pointer* error_string simple_strto* kstrto* sscanf vsscanf
            num_to_str restricted_pointer hex_dump_to_buffer print_hex_dump*
            """,
        ),
        (
            "kernel/printk/printk.c",
            """
            printk* vprintk* pr_cont* printk_* console_unlock* console_flush_all console_emit_next_record* devkmsg_*
            vprintk_* log_store*
            """,
        ),
        (
            "drivers/base/core.c",
            """
            dev_printk* dev_vprintk* dev_info dev_notice dev_warn dev_err dev_alert dev_crit dev_emerg dev_err_probe
            netdev_printk* netdev_err netdev_warn netdev_info
            """,
        ),
    ),
    Helper.DEFERRED: (
        ("kernel/time/timer.c", "del_timer* timer_delete* try_to_del_timer* timer_shutdown*"),
        (
            "kernel/workqueue.c",
            """
            flush_work flush_work_* flush_delayed_work cancel_work* cancel_delayed_work* try_to_grab_pending
            flush_workqueue drain_workqueue destroy_workqueue flush_scheduled_work work_grab_pending start_flush_work
            insert_work insert_wq_barrier queue_work* queue_delayed_work* mod_delayed_work* touch_work_lockdep_map*
            touch_wq_lockdep_map*
            """,
        ),
        (
            "kernel/kthread.c, kernel/sched/wait.c",
            """
            kthread_stop* finish_wait prepare_to_wait* wait_for_completion* wait_for_common* complete complete_*
            swake_up*
            """,
        ),
    ),
    Helper.DEVICE: (
        ("lib/kobject.c", "kobject_* add_uevent_var kset_*"),
        (
            "drivers/base",
            """
            get_device_parent device_add device_del device_unregister device_register device_destroy device_release
            devres_release_all device_create* device_for_each_child* device_remove_* device_initial_probe
            bus_remove_device put_device get_device
            """,
        ),
        (
            "fs/sysfs, fs/proc/generic.c",
            """
            sysfs_remove* sysfs_create* sysfs_delete* dpm_sysfs_* proc_register proc_create* proc_mkdir* remove_proc_*
            """,
        ),
        (
            "drivers/usb/core",
            """
            usb_kill_urb usb_kill_anchored_urbs usb_submit_urb usb_hcd_submit_urb usb_control_msg usb_start_wait_urb
            usb_bulk_msg usb_interrupt_msg usb_internal_control_msg usb_poison_urb usb_unlink_urb
            """,
        ),
        (
            "drivers/net, net/core/dev.c",
            """
            unregister_netdev unregister_netdevice* rollback_registered* hwrng_unregister i2c_del_adapter
            unregister_client tty_unregister_device
            """,
        ),
    ),
    Helper.SLEEP: (
        (
            "kernel/sched/core.c",
            """
            might_sleep* might_resched* cant_sleep cant_migrate schedule_bug schedule schedule_* __schedule
            preempt_schedule* cond_resched* context_switch switch_to io_schedule* yield do_sched_yield schedule_debug*
            preempt_count_* in_lock_functions
            """,
        ),
        ("lib/smp_processor_id.c", "check_preemption_disabled debug_smp_processor_id this_cpu_preempt_check"),
    ),
    Helper.WAIT: (
        (
            "kernel/sched/wait.c, mm/filemap.c, fs/buffer.c",
            """
            *wait* *completion* lock_page* folio_lock* lock_buffer* do_read_cache_*
            """,
        ),
        ("locks of subsystems", "*_lock *_lock_* *_slowlock* *down_*"),
        ("kernel/kthread.c", "kthread* __kthread*"),
    ),
    Helper.ALLOCATOR: (
        (
            "mm/slub.c, mm/slab_common.c, mm/util.c",
            """
            kmalloc* kzalloc* kcalloc* krealloc* kvmalloc* kvzalloc* kvcalloc* kvfree* kfree* kmem_cache_* kmem_*
            slab_* cache_alloc* cache_free* cache_grow* free_slab* discard_slab* slub_* kmemdup* memdup_* kstrdup*
            kstrndup* kasprintf kvasprintf* vmemdup_user do_slab_free ___slab_alloc get_partial* put_cpu_partial*
            unfreeze_partials* flush_cpu_slab memcg_slab_* get_from_free* do_kmalloc* kfree_skb* consume_skb skb_unref
            alloc_from_new_slab* refill_* rcu_free_sheaf* free_to_pcs* sheaf*
            """,
        ),
        (
            "mm/vmalloc.c, mm/kmemleak.c, lib/idr.c",
            """
            vmalloc* vzalloc* vfree* vunmap* vmap* alloc_vmap_area get_vm_area* create_object* kmemleak* idr_get*
            idr_preload* idr_alloc* ida_* radix_tree_node_alloc mempool_* list_lru_init*
            """,
        ),
    ),
    Helper.PAGES: (
        (
            "mm/page_alloc.c, mm/mempolicy.c",
            """
            alloc_pages* alloc_frozen* get_free_page* free_page* free_pages* free_unref_* free_the_page free_pcp*
            free_pcppages* free_one_page free_frozen_* rmqueue* get_page_from_freelist* prep_new_page post_alloc_hook
            check_new_page* alloc_page* folio_alloc* get_zeroed_page put_page put_page_* folio_put* release_pages
            free_hot_cold_page* pcpu_* alloc_percpu* free_percpu* vma_alloc_* free_large_kmalloc* alloc_page_*
            check_free_page* filemap_alloc_folio* filemap_get_folio* pagecache_get_page free_contig_range*
            lru_add_drain*
            """,
        ),
    ),
    Helper.ALLOCATES: (("all over", "*alloc* *strdup *strndup *memdup*"),),
    Helper.KTHREAD: (
        (
            "kernel/workqueue.c, kernel/kthread.c, arch/*/entry",
            """
            process_one_work process_scheduled_works worker_thread kthread ret_from_fork* ret_from_kernel_thread
            kernel_thread_helper
            """,
        ),
    ),
    Helper.SOCKET: (("net/core/sock.c", "lock_sock* release_sock"),),
    Helper.RCU: (
        (
            "kernel/rcu",
            """
            rcu_* srcu_* call_rcu* call_srcu* kvfree_rcu* kfree_rcu* synchronize_* note_gp_changes list_*_rcu
            hlist_*_rcu lockdep_rcu_suspicious
            """,
        ),
    ),
}

ALWAYS = frozenset(
    (
        Helper.REPORT,
        Helper.TRAP,
        Helper.SANITIZER,
        Helper.LOCK,
        Helper.MEMORY,
        Helper.LIST,
        Helper.PRINT,
        Helper.DEFERRED,
        Helper.DEVICE,
    )
)
"""Groups that are skipped in every kind of report."""


@cache
def _names(groups: frozenset[Helper]) -> Callable[[str], bool]:
    return compile_names(*(_NAMES[group] for group in groups), strip=True)


@lru_cache(maxsize=16384)
def is_helper(name: str, groups: frozenset[Helper]) -> bool:
    """Whether a function, by its name as a trace has it, is in one of the groups."""
    return _names(groups)(readable(name).lstrip("_"))
