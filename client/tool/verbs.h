/* The verbs of the `starling` command: one file each, all of one shape. argv[0] is the verb. The result is the exit
 * code (common/base/err.h, err_exit_code). stdout carries data, stderr messages. */
#ifndef STARLING_TOOL_VERBS_H
#define STARLING_TOOL_VERBS_H

int verb_demo(int argc, char **argv);
int verb_experiment(int argc, char **argv);
int verb_draw_images(int argc, char **argv);
int verb_import_cifar(int argc, char **argv);
int verb_split(int argc, char **argv);
int verb_status(int argc, char **argv);
int verb_join(int argc, char **argv);
int verb_eval(int argc, char **argv);
int verb_embed(int argc, char **argv);
int verb_inspect(int argc, char **argv);
int verb_swarm(int argc, char **argv);
int verb_ca(int argc, char **argv);
int verb_bench(int argc, char **argv);

#endif
