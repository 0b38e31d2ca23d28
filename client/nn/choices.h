/* Which method runs a pass fastest here, found by trying. What was measured is kept as text, under a line that names
 * processor and library, so that a site measures once and runs the same kernels, and so the same bits, ever after. */
#ifndef STARLING_NN_CHOICES_H
#define STARLING_NN_CHOICES_H

#include "client/nn/conv.h"
#include "common/base/buf.h"

#define CHOICES_HEADER "starling kernels 1" /* the first line of the text */
#define CHOICE_METHODS 3
/* What a Winograd pass may take besides its maps. Transformed weights are up to four times as large as they were, and
 * the sums of their gradients too. */
#define CHOICE_BYTES_MOST ((size_t)24 << 20)

struct choice {
    struct conv_shape shape;
    enum conv_pass pass;
    /* Nanoseconds on f32 and on bf16 maps, by CONV_DIRECT, CONV_WINOGRAD2, CONV_WINOGRAD4; 0: does not exist here, or
     * is not accurate, or takes too much memory. */
    double time[2][CHOICE_METHODS];
};

struct choices {
    struct choice *all;
    uint32_t count, cap;
    uint32_t measured;  /* of them in this process */
    const bool *cancel; /* polled between measurements when not NULL; ERR_CANCELLED */
};

/* The processor and the library: "AMD EPYC 9555; oneDNN 2.6.3, AVX-512 with bf16". */
void choices_machine(char *out, size_t size);
/* Takes over what was measured on this machine with this library; other text is no error, and is ignored. */
int choices_parse(struct choices *choices, const char *text, struct err *err);
int choices_text(const struct choices *choices, struct buf *out);
/* The fastest method for maps of a type, and its time; winograd: whether those may be it. It has to be clearly faster
 * than direct. 0 ns: nothing is possible. */
enum conv_method choice_best(const struct choice *choice, enum map_type type, bool winograd, double *ns);
/* shape: f32 maps. Measures where nothing is known, on no more images than tell. *out is valid until the next call. */
int choices_find(struct choices *choices, const struct conv_shape *shape, enum conv_pass pass,
                 const struct choice **out, struct err *err);
/* measure.c: fills in the times of a shape and pass. ERR_NOMEM, ERR_FAILED. */
int choice_measure(struct choice *choice, struct err *err);
void choices_fini(struct choices *choices);

#endif
