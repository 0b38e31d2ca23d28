/* The parts of `starling bench`. */
#ifndef STARLING_TOOL_BENCH_H
#define STARLING_TOOL_BENCH_H

int bench_step(int argc, char **argv);
int bench_input(int argc, char **argv);
int bench_wire(int argc, char **argv);
int bench_aggregate(int argc, char **argv);
double bench_now(void); /* seconds */

#endif
