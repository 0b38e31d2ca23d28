/* The YAML reader: libyaml's events against an option set.
 *
 * Nothing is built in memory: a map is a section of the set or an error, a scalar is an option's value or an error, so
 * depth and number of keys are bounded by the set itself, whatever the file holds. Accepted are UTF-8 files of at most
 * 1 MiB with one document of nested maps (dotted keys may stand for them), scalars, and lists where the option is one.
 * Anchors, aliases, tags, a second document and a key given twice are refused: in a configuration they are slips. */
#include "common/config/config.h"

#include "common/base/mem.h"
#include "common/config/set.h"
#include "common/config/value.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

#define SECTION_MAX 8 /* depth of sections that a set may have */
#define WHERE_MAX   256

/* What was seen of each option, by its index in the set. Sections are marked at their first option, one bit a level. */
struct seen {
    size_t line; /* 0: not yet */
    unsigned sections;
};

struct reader {
    const struct option_set *set;
    const char *name;
    void *out;
    struct err *err;
    yaml_parser_t parser;
    yaml_event_t event; /* the one at hand */
    struct seen *seen;
    char where[WHERE_MAX];
};

static const char *where(struct reader *reader, yaml_mark_t mark)
{
    (void)snprintf(reader->where, sizeof reader->where, "%.200s:%zu:%zu", reader->name, mark.line + 1, mark.column + 1);
    return reader->where;
}

static int refuse(struct reader *reader, const char *what)
{
    return err_set(reader->err, ERR_CONFIG, "%s: %s", where(reader, reader->event.start_mark), what);
}

static int syntax_error(struct reader *reader, const uint8_t *text)
{
    const yaml_parser_t *parser = &reader->parser;
    if (parser->error == YAML_MEMORY_ERROR) {
        return err_set(reader->err, ERR_NOMEM, "%s: %s", reader->name, err_meaning(ERR_NOMEM));
    }
    yaml_mark_t mark = parser->problem_mark;
    if (parser->error == YAML_READER_ERROR) { /* bytes that are no text: libyaml knows the offset alone */
        mark = (yaml_mark_t){0};
        for (size_t i = 0; i < parser->problem_offset; i++) {
            mark.line += text[i] == '\n';
            mark.column = text[i] == '\n' ? 0 : mark.column + 1;
        }
    }
    return err_set(reader->err, ERR_CONFIG, "%s: %s", where(reader, mark),
                   parser->problem ? parser->problem : "not YAML");
}

/* The next event, without those that are refused wherever they stand. */
static int next(struct reader *reader)
{
    yaml_event_t *event = &reader->event;
    yaml_event_delete(event);
    if (!yaml_parser_parse(&reader->parser, event)) {
        return syntax_error(reader, reader->parser.input.string.start);
    }
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (event->type == YAML_SCALAR_EVENT) {
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
    }
    if (anchor || event->type == YAML_ALIAS_EVENT) {
        return refuse(reader, "anchors and aliases (& and *) are not allowed here");
    }
    return tag ? refuse(reader, "tags (!) are not allowed here") : 0;
}

/* The scalar at hand as a value; only unquoted ones are numbers, words of a choice and the like. */
static int read_scalar(struct reader *reader, const struct set_option *found, uint32_t index)
{
    const char *text = (const char *)reader->event.data.scalar.value;
    size_t len = reader->event.data.scalar.length;
    bool quoted = reader->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    yaml_mark_t mark = reader->event.start_mark;
    if (!quoted && len == 0) {
        return err_set(reader->err, ERR_CONFIG, "%s: %s: the value is missing", where(reader, mark), found->key);
    }
    if (quoted && found->option->type != OPTION_TEXT) {
        return err_set(reader->err, ERR_CONFIG, "%s: %s: \"%.*s\" stands in quotes, and is no text",
                       where(reader, mark), found->key, VALUE_SHOWN, text);
    }
    int rc = value_parse_scalar(found->option, text, len, index, (char *)reader->out + found->base, reader->err);
    if (rc) {
        (void)err_prefix(reader->err, "%s: %s", where(reader, mark), found->key);
    }
    return rc;
}

static int read_list(struct reader *reader, const struct set_option *found)
{
    yaml_mark_t mark = reader->event.start_mark;
    uint32_t count = 0;
    int rc = next(reader);
    for (; rc == 0 && reader->event.type != YAML_SEQUENCE_END_EVENT; count++) {
        if (reader->event.type != YAML_SCALAR_EVENT) {
            rc = refuse(reader, "a number is expected");
        } else if (count >= found->option->size) {
            rc = err_set(reader->err, ERR_CONFIG, "%s: %s: more than %zu elements",
                         where(reader, reader->event.start_mark), found->key, found->option->size);
        } else {
            rc = read_scalar(reader, found, count);
        }
        rc = rc ? rc : next(reader);
    }
    if (rc == 0) {
        rc = value_end_list(found->option, count, (char *)reader->out + found->base, reader->err);
        if (rc) {
            (void)err_prefix(reader->err, "%s: %s", where(reader, mark), found->key);
        }
    }
    return rc;
}

static int read_value(struct reader *reader, const struct set_option *found)
{
    bool list = found->option->type == OPTION_U32_LIST;
    if (list && reader->event.type == YAML_SEQUENCE_START_EVENT) {
        return read_list(reader, found);
    }
    if (!list && reader->event.type == YAML_SCALAR_EVENT) {
        return read_scalar(reader, found, 0);
    }
    return err_set(reader->err, ERR_CONFIG, "%s: %s: %s is expected", where(reader, reader->event.start_mark),
                   found->key, list ? "a list such as [2, 2]" : "a single value");
}

static int read_map(struct reader *reader, const char *section, unsigned depth);

static int read_section(struct reader *reader, const char *key, size_t first, unsigned depth, yaml_mark_t mark)
{
    if (reader->seen[first].sections & 1u << depth || depth >= SECTION_MAX) {
        return err_set(reader->err, ERR_CONFIG, "%s: section \"%s\" is given twice", where(reader, mark), key);
    }
    reader->seen[first].sections |= 1u << depth;
    if (reader->event.type == YAML_MAPPING_START_EVENT) {
        return read_map(reader, key, depth + 1);
    }
    if (reader->event.type == YAML_SCALAR_EVENT && reader->event.data.scalar.length == 0) {
        return 0; /* all of its keys are commented out */
    }
    return err_set(reader->err, ERR_CONFIG, "%s: \"%s\" is a section; its keys stand indented below it",
                   where(reader, reader->event.start_mark), key);
}

/* The key at hand and its value. */
static int read_pair(struct reader *reader, const char *section, unsigned depth)
{
    char name[KEY_MAX], key[2 * KEY_MAX];
    struct set_option found;
    size_t first;
    yaml_mark_t mark = reader->event.start_mark;
    if (reader->event.type != YAML_SCALAR_EVENT ||
        strlen((const char *)reader->event.data.scalar.value) != reader->event.data.scalar.length) {
        return refuse(reader, "a key is expected");
    }
    (void)snprintf(name, sizeof name, "%s", (const char *)reader->event.data.scalar.value);
    (void)snprintf(key, sizeof key, "%s%s%s", section, *section ? "." : "", name);
    bool is_option = set_find(reader->set, key, &found);
    if (!is_option && (*name == '\0' || !set_has_section(reader->set, key, &first))) {
        return set_unknown(reader->set, where(reader, mark), section, name, reader->err);
    }
    if (is_option && reader->seen[found.index].line) {
        return err_set(reader->err, ERR_CONFIG, "%s: key \"%s\" is given twice, first in line %zu", where(reader, mark),
                       found.key, reader->seen[found.index].line);
    }
    int rc = next(reader);
    if (rc || !is_option) {
        return rc ? rc : read_section(reader, key, first, depth, mark);
    }
    reader->seen[found.index].line = mark.line + 1;
    return read_value(reader, &found);
}

static int read_map(struct reader *reader, const char *section, unsigned depth)
{
    int rc = next(reader);
    while (rc == 0 && reader->event.type != YAML_MAPPING_END_EVENT) {
        rc = read_pair(reader, section, depth);
        rc = rc ? rc : next(reader);
    }
    return rc;
}

static int read_options(void *arg)
{
    return read_map(arg, "", 0);
}

/* Stream, document, map (read by `body`) or nothing, end, end. */
static int read_stream(struct reader *reader, int (*body)(void *arg), void *arg)
{
    int rc = next(reader); /* the stream's start */
    rc = rc ? rc : next(reader);
    if (rc || reader->event.type == YAML_STREAM_END_EVENT) {
        return rc; /* nothing but comments */
    }
    rc = next(reader);
    if (rc == 0 && reader->event.type == YAML_MAPPING_START_EVENT) {
        rc = body(arg);
    } else if (rc == 0 && (reader->event.type != YAML_SCALAR_EVENT || reader->event.data.scalar.length > 0)) {
        rc = refuse(reader, "lines of the form \"key: value\" are expected");
    }
    rc = rc ? rc : next(reader); /* the document's end */
    rc = rc ? rc : next(reader);
    if (rc == 0 && reader->event.type != YAML_STREAM_END_EVENT) {
        rc = refuse(reader, "a second document is not allowed here");
    }
    return rc;
}

static int check_complete(const struct reader *reader)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < set_count(reader->set); i++) {
        struct set_option missing;
        set_at(reader->set, i, &missing);
        if (reader->seen[i].line == 0 && missing.option->added) {
            rc = value_parse(missing.option, missing.option->standard, (char *)reader->out + missing.base, reader->err);
        } else if (reader->seen[i].line == 0) {
            rc = err_set(reader->err, ERR_CONFIG, "%s: the key \"%s\" is missing", reader->name, missing.key);
        }
    }
    return rc;
}

static int parse(const struct option_set *set, const char *name, const uint8_t *text, size_t len, bool complete,
                 void *out, struct err *err)
{
    if (len > CONFIG_FILE_MAX) {
        return err_set(err, ERR_CONFIG, "%s: larger than 1 MiB", name);
    }
    struct reader reader = {.set = set, .name = name, .out = out, .err = err};
    reader.seen = mem_new(set_count(set), sizeof *reader.seen);
    if (!reader.seen || !yaml_parser_initialize(&reader.parser)) {
        mem_free(reader.seen);
        return err_set(err, ERR_NOMEM, "%s: %s", name, err_meaning(ERR_NOMEM));
    }
    yaml_parser_set_input_string(&reader.parser, text, len);
    yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
    int rc = read_stream(&reader, read_options, &reader);
    if (rc == 0 && complete) {
        rc = check_complete(&reader);
    }
    yaml_event_delete(&reader.event);
    yaml_parser_delete(&reader.parser);
    mem_free(reader.seen);
    return rc;
}

/* ---- Files without a set ---- */

#define LEAVES_MAX 4096
#define VALUE_MAX  8192

struct leaves {
    struct reader reader;
    config_visit *visit;
    void *arg;
    struct buf seen; /* all keys, each with its zero */
    uint32_t count;
};

static int leaf_once(struct leaves *leaves, const char *key)
{
    const char *seen = (const char *)leaves->seen.data;
    for (size_t at = 0; at < leaves->seen.len; at += strlen(seen + at) + 1) {
        if (strcmp(seen + at, key) == 0) {
            return err_set(leaves->reader.err, ERR_CONFIG, "%s: key \"%s\" is given twice",
                           where(&leaves->reader, leaves->reader.event.start_mark), key);
        }
    }
    if (++leaves->count > LEAVES_MAX) {
        return refuse(&leaves->reader, "more keys than a file of this kind may have");
    }
    return buf_append(&leaves->seen, key, strlen(key) + 1)
               ? err_set(leaves->reader.err, ERR_NOMEM, "%s: %s", leaves->reader.name, err_meaning(ERR_NOMEM))
               : 0;
}

static int tell_leaf(struct leaves *leaves, yaml_mark_t mark, const char *key, const char *value)
{
    return leaves->visit(leaves->arg, where(&leaves->reader, mark), key, value, leaves->reader.err);
}

/* A value is one line of text without a zero. */
static int leaf_text(struct leaves *leaves, struct buf *out)
{
    const yaml_event_t *event = &leaves->reader.event;
    if (event->type != YAML_SCALAR_EVENT ||
        strlen((const char *)event->data.scalar.value) != event->data.scalar.length ||
        strchr((const char *)event->data.scalar.value, '\n')) {
        return refuse(&leaves->reader, "a single value is expected");
    }
    return buf_append(out, event->data.scalar.value, event->data.scalar.length)
               ? refuse(&leaves->reader, "the value is too long")
               : 0;
}

static int leaf_list(struct leaves *leaves, struct buf *out)
{
    struct reader *reader = &leaves->reader;
    (void)buf_append(out, "[", 1);
    int rc = next(reader);
    for (uint32_t i = 0; rc == 0 && reader->event.type != YAML_SEQUENCE_END_EVENT; i++) {
        rc = i > 0 && buf_append(out, ", ", 2) ? refuse(reader, "the list is too long") : leaf_text(leaves, out);
        rc = rc ? rc : next(reader);
    }
    return rc == 0 && buf_append(out, "]", 1) ? refuse(reader, "the list is too long") : rc;
}

static int leaf_map(struct leaves *leaves, const char *section, unsigned depth);

static int leaf_pair(struct leaves *leaves, const char *section, unsigned depth)
{
    struct reader *reader = &leaves->reader;
    char key[2 * KEY_MAX];
    const char *name = (const char *)reader->event.data.scalar.value;
    if (reader->event.type != YAML_SCALAR_EVENT || strlen(name) != reader->event.data.scalar.length || !*name) {
        return refuse(reader, "a key is expected");
    }
    if ((size_t)snprintf(key, sizeof key, "%s%s%s", section, *section ? "." : "", name) >= KEY_MAX) {
        return refuse(reader, "the key is too long");
    }
    int rc = leaf_once(leaves, key);
    rc = rc ? rc : next(reader);
    if (rc) {
        return rc;
    }
    yaml_mark_t mark = reader->event.start_mark;
    if (reader->event.type == YAML_MAPPING_START_EVENT) {
        if (depth >= SECTION_MAX) {
            return refuse(reader, "sections lie too deep in each other");
        }
        rc = tell_leaf(leaves, mark, key, NULL);
        return rc ? rc : leaf_map(leaves, key, depth + 1);
    }
    struct buf value;
    buf_init(&value, VALUE_MAX);
    rc = reader->event.type == YAML_SEQUENCE_START_EVENT ? leaf_list(leaves, &value) : leaf_text(leaves, &value);
    if (rc == 0 && buf_append(&value, "", 1)) {
        rc = refuse(reader, "the value is too long");
    }
    rc = rc ? rc : tell_leaf(leaves, mark, key, (const char *)value.data);
    buf_fini(&value);
    return rc;
}

static int leaf_map(struct leaves *leaves, const char *section, unsigned depth)
{
    int rc = next(&leaves->reader);
    while (rc == 0 && leaves->reader.event.type != YAML_MAPPING_END_EVENT) {
        rc = leaf_pair(leaves, section, depth);
        rc = rc ? rc : next(&leaves->reader);
    }
    return rc;
}

static int read_leaves(void *arg)
{
    return leaf_map(arg, "", 0);
}

int config_leaves(const char *name, const uint8_t *text, size_t len, config_visit *visit, void *arg, struct err *err)
{
    if (len > CONFIG_FILE_MAX) {
        return err_set(err, ERR_CONFIG, "%s: larger than 1 MiB", name);
    }
    struct leaves leaves = {.reader = {.name = name, .err = err}, .visit = visit, .arg = arg};
    buf_init(&leaves.seen, CONFIG_FILE_MAX);
    if (!yaml_parser_initialize(&leaves.reader.parser)) {
        return err_set(err, ERR_NOMEM, "%s: %s", name, err_meaning(ERR_NOMEM));
    }
    yaml_parser_set_input_string(&leaves.reader.parser, text, len);
    yaml_parser_set_encoding(&leaves.reader.parser, YAML_UTF8_ENCODING);
    int rc = read_stream(&leaves.reader, read_leaves, &leaves);
    yaml_event_delete(&leaves.reader.event);
    yaml_parser_delete(&leaves.reader.parser);
    buf_fini(&leaves.seen);
    return rc;
}

int config_parse(const struct option_set *set, const char *name, const uint8_t *text, size_t len, void *out,
                 struct err *err)
{
    return parse(set, name, text, len, false, out, err);
}

int config_parse_complete(const struct option_set *set, const char *name, const uint8_t *text, size_t len, void *out,
                          struct err *err)
{
    return parse(set, name, text, len, true, out, err);
}
