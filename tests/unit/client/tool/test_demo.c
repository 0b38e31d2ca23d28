/* The demo's decisions: its plan, what is held out, its processes. */
#include "client/tool/demo.h"
#include "client/tool/demo_process.h"
#include "common/base/mem.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct demo *demo_for(const char *set)
{
    struct demo *demo = mem_new(1, sizeof *demo);
    assert_non_null(demo);
    demo->options = (struct demo_options){.clients = 3, .seed = 9, .split = "iid"};
    demo->options.set[0] = set;
    return demo;
}

static void plans_follow_the_flags_and_set_has_the_last_word(void **state)
{
    (void)state;
    struct err err;
    struct demo *demo = demo_for("model.width=32");
    demo->options.rounds = 4;
    assert_int_equal(demo_plan(demo, &err), 0);
    assert_int_equal(demo->plan.rounds, 4);
    assert_int_equal(demo->plan.seed, 9);
    assert_int_equal(demo->plan.min_clients, 3); /* all: the result then does not depend on who is late */
    assert_int_equal(demo->plan.model.width, 32);
    assert_true(demo->plan.matching.start_round + demo->plan.matching.ramp_rounds <= 4);
    mem_free(demo);

    demo = demo_for("rounds=6");
    demo->options.rounds = 40;
    assert_int_equal(demo_plan(demo, &err), 0);
    assert_int_equal(demo->plan.rounds, 6);
    assert_true(demo->plan.matching.start_round + demo->plan.matching.ramp_rounds <= 6);
    mem_free(demo);

    demo = demo_for("matching.start_round=2");
    assert_int_equal(demo_plan(demo, &err), 0);
    assert_int_equal(demo->plan.matching.start_round, 2);
    mem_free(demo);
}

static void bad_settings_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *set;
        int code;
        const char *part;
    } bad[] = {
        {"model.widht=32", ERR_CONFIG, "model.width"},
        {"model.width=many", ERR_CONFIG, "model.width"},
        {"rounds", ERR_USAGE, "rounds"},
        {"=3", ERR_USAGE, "KEY=VALUE"},
        {"min_clients=4", ERR_CONFIG, "min_clients"},
        {"bn_groups=7", ERR_CONFIG, "bn_groups"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct err err = {0};
        struct demo *demo = demo_for(bad[i].set);
        assert_int_equal(demo_plan(demo, &err), bad[i].code);
        assert_non_null(strstr(err.text, bad[i].part));
        mem_free(demo);
    }
}

static void server_yaml_keeps_the_midway_model(void **state)
{
    (void)state;
    struct err err;
    struct demo *demo = demo_for(NULL);
    demo->options.rounds = 9;
    assert_int_equal(demo_plan(demo, &err), 0);
    struct buf text;
    buf_init(&text, 1 << 16);
    assert_int_equal(demo_server_yaml(demo, "/tmp/a \"b\"/server", &text), 0);
    assert_int_equal(buf_append(&text, "", 1), 0);
    const char *yaml = (const char *)text.data;
    assert_int_equal(demo_midway(&demo->plan), 4);
    assert_non_null(strstr(yaml, "\nkeep_every: 4\n"));
    assert_non_null(strstr(yaml, "\nstate: \"/tmp/a \\\"b\\\"/server\"\n"));
    assert_non_null(strstr(yaml, "\nplan:\n  rounds: 9\n"));
    buf_fini(&text);
    mem_free(demo);
}

static void a_fifth_is_held_out_by_seed(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 2, 4, 5, 9, 10, 100, 1003};
    static const uint32_t wanted[] = {0, 1, 1, 1, 1, 2, 20, 200};
    bool held[1003], other[1003];
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint32_t taken = 0;
        demo_hold_out(1, 0, sizes[i], held);
        for (uint32_t j = 0; j < sizes[i]; j++) {
            taken += held[j];
        }
        assert_int_equal(taken, wanted[i]);
    }
    demo_hold_out(1, 0, 1003, held);
    demo_hold_out(1, 0, 1003, other);
    assert_memory_equal(held, other, sizeof held);
    demo_hold_out(2, 0, 1003, other);
    assert_memory_not_equal(held, other, sizeof held);
    demo_hold_out(1, 1, 1003, other); /* another class: another choice */
    assert_memory_not_equal(held, other, sizeof held);
    /* Not the first or the last fifth: both halves give some. */
    uint32_t first_half = 0;
    for (uint32_t j = 0; j < 500; j++) {
        first_half += held[j];
    }
    assert_in_range(first_half, 60, 140);
}

struct shell {
    struct process process;
    char folder[64];
};

static void shell_init(struct shell *shell, const char *script)
{
    *shell = (struct shell){.process = {.name = "shell", .program = "/bin/sh"}};
    (void)strcpy(shell->folder, "/tmp/starling-test-XXXXXX");
    assert_non_null(mkdtemp(shell->folder));
    (void)snprintf(shell->process.log, sizeof shell->process.log, "%s/log", shell->folder);
    char *args[] = {(char *)"sh", (char *)"-c", (char *)script, NULL};
    memcpy(shell->process.args, args, sizeof args);
    assert_int_equal(process_start(&shell->process, NULL), 0);
}

static void shell_fini(struct shell *shell)
{
    (void)unlink(shell->process.log);
    assert_int_equal(rmdir(shell->folder), 0);
}

static void wait_for_end(struct process *process)
{
    for (int i = 0; i < 1000 && !process_ended(process); i++) {
        (void)usleep(10000);
    }
    assert_int_equal(process->pid, 0);
}

static void assert_described(int status, const char *words)
{
    struct buf text;
    buf_init(&text, 256);
    assert_int_equal(process_describe(status, &text), 0);
    assert_int_equal(buf_append(&text, "", 1), 0);
    assert_string_equal((const char *)text.data, words);
    buf_fini(&text);
}

static void an_end_is_described_with_the_end_of_the_log(void **state)
{
    (void)state;
    struct shell shell;
    shell_init(&shell, "echo one; echo two >&2; printf 'thr\\033ee\\n'; exit 65");
    wait_for_end(&shell.process);
    assert_described(shell.process.status, "exit code 65");
    struct buf tail;
    buf_init(&tail, 4096);
    assert_int_equal(process_log_tail(&shell.process, 2, "> ", &tail), 0);
    assert_int_equal(buf_append(&tail, "", 1), 0);
    assert_string_equal((const char *)tail.data, "> two\n> thr?ee\n");
    tail.len = 0;
    assert_int_equal(process_log_tail(&shell.process, 9, "", &tail), 0);
    assert_int_equal(buf_append(&tail, "", 1), 0);
    assert_string_equal((const char *)tail.data, "one\ntwo\nthr?ee\n");
    buf_fini(&tail);
    shell_fini(&shell);
}

static void stopping_leaves_nothing_running(void **state)
{
    (void)state;
    struct shell willing, stubborn;
    shell_init(&willing, "exec sleep 60");
    /* Deaf to SIGTERM; it says so once its trap is set, else the signal could come first. */
    shell_init(&stubborn, "trap '' TERM; echo deaf; while :; do sleep 1; done");
    struct buf tail;
    buf_init(&tail, 4096);
    for (int i = 0; i < 1000 && tail.len == 0; i++) {
        (void)usleep(10000);
        (void)process_log_tail(&stubborn.process, 1, "", &tail);
    }
    buf_fini(&tail);
    pid_t pid = stubborn.process.pid;
    struct process *const both[] = {&willing.process, &stubborn.process};
    processes_stop(both, 2, 300);
    assert_int_equal(willing.process.pid, 0);
    assert_int_equal(stubborn.process.pid, 0);
    assert_described(willing.process.status, "signal 15 (TERM)");
    assert_described(stubborn.process.status, "signal 9 (KILL)");
    assert_int_equal(kill(pid, 0), -1);
    shell_fini(&willing);
    shell_fini(&stubborn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_follow_the_flags_and_set_has_the_last_word),
        cmocka_unit_test(bad_settings_are_named),
        cmocka_unit_test(server_yaml_keeps_the_midway_model),
        cmocka_unit_test(a_fifth_is_held_out_by_seed),
        cmocka_unit_test(an_end_is_described_with_the_end_of_the_log),
        cmocka_unit_test(stopping_leaves_nothing_running),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
