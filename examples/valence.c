/* valence.c - bring your own reward: how cheerful are these texts, by a lexicon of words?
 *
 * What it teaches: a reward need not come from a reward model. Load rows, set a number on each, save
 * them: every offline method (MLE filter, RWR, DT) learns from such a file. Fields of a row that the
 * library does not know come out as they went in.
 *
 *   cc -O2 examples/valence.c -o valence -lm -lpthread
 *   ./valence --lexicon vader_lexicon.txt --data rows.jsonl --out valued.jsonl
 *   ./valence --lexicon vader_lexicon.txt < rows.jsonl > valued.jsonl
 *   ./valence --stories stories.txt --out stories.jsonl [--words 60]
 *
 * The reward is the sum of the words' valences by the number of words: VADER's own "compound" score
 * saturates on texts of a paragraph, and then there is nothing left to learn from. The lexicon has a
 * line for each word: word, tab, mean valence, tab, whatever else. A pair gets two rewards.
 *
 * --stories makes rows to train on: a text of stories, with <|endoftext|> between them, becomes
 * {"prompt": first sentence, "completion": what follows, up to the last sentence that ends within
 * --words words}. The blank between the two belongs to the completion: joined, they are the story.
 *
 * It prints, on stderr:   8000 texts, mean valence per word 0.0712, sd 0.0531 */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"

/* ---- files ---- */

/* A whole file with a zero behind it ("-": standard input); NULL after saying why. */
static char *read_all(const char *path, size_t *bytes) {
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    size_t room = 1 << 16, n = 0;
    char *text = file ? (char *)malloc(room + 1) : NULL, *grown;
    while (text) {
        size_t got = fread(text + n, 1, room - n, file);
        n += got;
        if (!got) break;
        if (n < room) continue;
        grown = (char *)realloc(text, (room *= 2) + 1);
        if (!grown) free(text);
        text = grown;
    }
    if (text && ferror(file)) free(text), text = NULL;
    if (!text) fprintf(stderr, "valence: %s: cannot be read\n", path);
    if (file && file != stdin) fclose(file);
    if (text) text[n] = 0;
    *bytes = n;
    return text;
}

/* ---- the reward ---- */

typedef struct word {
    const char *text;
    size_t bytes;
    double valence;
} word;

typedef struct lexicon {
    char *text; /* of the file; the words point into it */
    word *words;
    size_t count;
} lexicon;

static int compare_words(const void *a, const void *b) {
    const word *x = (const word *)a, *y = (const word *)b;
    size_t n = x->bytes < y->bytes ? x->bytes : y->bytes;
    int order = memcmp(x->text, y->text, n);
    return order ? order : x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int read_lexicon(const char *path, lexicon *lex) {
    size_t bytes, lines = 1;
    char *line, *end;
    lex->text = read_all(path, &bytes);
    if (!lex->text) return 0;
    for (line = lex->text; (line = strchr(line, '\n')) != NULL; line++) lines++;
    lex->words = (word *)malloc(lines * sizeof *lex->words); /* the last one may lack its newline */
    for (line = lex->text; lex->words && *line; line = end + (*end != 0)) {
        size_t tab = strcspn(line, "\t\n");
        end = line + strcspn(line, "\n");
        if (line[tab] != '\t') continue; /* no valence, no word */
        lex->words[lex->count].text = line;
        lex->words[lex->count].bytes = tab;
        lex->words[lex->count++].valence = strtod(line + tab + 1, NULL);
    }
    if (lex->words) qsort(lex->words, lex->count, sizeof *lex->words, compare_words);
    if (!lex->count) fprintf(stderr, "valence: %s: no line with a word, a tab and a number\n", path);
    return lex->count > 0;
}

static int is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static int is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

/* One word of the text, without the signs around it and in lower case, looked up. */
static double word_valence(const lexicon *lex, const char *text, size_t bytes) {
    char lower[64];
    word key, *found;
    size_t i;
    while (bytes && !is_letter(text[bytes - 1])) bytes--;
    while (bytes && !is_letter(text[0])) text++, bytes--;
    if (!bytes || bytes > sizeof lower) return 0; /* no lexicon has longer words */
    for (i = 0; i < bytes; i++) lower[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 32) : text[i];
    memset(&key, 0, sizeof key);
    key.text = lower;
    key.bytes = bytes;
    found = (word *)bsearch(&key, lex->words, lex->count, sizeof key, compare_words);
    return found ? found->valence : 0;
}

/* Sum of valences by number of words; a text without words is neither good nor bad. */
static double valence(const lexicon *lex, const orl_text *text) {
    size_t i = 0, start, words = 0;
    double sum = 0;
    while (text->text && i < text->bytes) {
        while (i < text->bytes && is_blank(text->text[i])) i++;
        for (start = i; i < text->bytes && !is_blank(text->text[i]); i++) {}
        if (i == start) break;
        sum += word_valence(lex, text->text + start, i - start);
        words++;
    }
    return words ? sum / (double)words : 0;
}

/* Sets the reward of every row: this loop is the whole of bringing one's own. */
static void reward_rows(orl_dataset *data, const lexicon *lex) {
    size_t i, n = orl_dataset_count(data), texts = 0;
    double sum = 0, squares = 0, mean;
    for (i = 0; i < n; i++) {
        orl_row *row = orl_dataset_row(data, i);
        row->reward = row->reward_raw = valence(lex, &row->response);
        row->flags |= ORL_LABELLED;
        sum += row->reward, squares += row->reward * row->reward, texts++;
        if (!(row->flags & ORL_PAIR)) continue;
        row->rejected_reward = row->rejected_reward_raw = valence(lex, &row->rejected);
        sum += row->rejected_reward, squares += row->rejected_reward * row->rejected_reward, texts++;
    }
    if (!texts) return;
    mean = sum / (double)texts;
    fprintf(stderr, "%zu texts, mean valence per word %.4f, sd %.4f\n", texts, mean,
            sqrt(fmax(0, squares / (double)texts - mean * mean)));
}

/* ---- stories ---- */

/* Where the sentence ends that the word at [start, end) closes, or 0: . ! or ?, then quotes perhaps. */
static int ends_sentence(const char *start, const char *end) {
    while (end > start && (end[-1] == '"' || end[-1] == '\'' || end[-1] == ')')) end--;
    return end > start && (end[-1] == '.' || end[-1] == '!' || end[-1] == '?');
}

/* One story, zero-terminated, into one row; 0 if it has no second sentence. */
static int add_story(orl_dataset *data, char *story, size_t most) {
    char *at, *first = NULL, *last = NULL, *word_start, *prompt;
    size_t words = 0;
    while (is_blank(*story)) story++;
    for (at = story; *at && words < most; words += first != NULL && word_start >= first) {
        while (is_blank(*at)) at++;
        for (word_start = at; *at && !is_blank(*at); at++) {}
        if (at == word_start) break;
        if (!ends_sentence(word_start, at)) continue;
        if (!first) first = at;
        else last = at;
    }
    if (!first || at == first) return 0;
    if (!last) last = at; /* no sentence is that short: cut between words */
    while (last > first && is_blank(last[-1])) last--;
    if (last == first) return 0;
    *last = 0;
    prompt = (char *)malloc((size_t)(first - story) + 1);
    if (!prompt) return 0;
    memcpy(prompt, story, (size_t)(first - story));
    prompt[first - story] = 0;
    first += strspn(first, " \t\r\n") - 1;
    *first = ' '; /* one blank, whatever stood there */
    orl_dataset_add(data, prompt, first);
    free(prompt);
    return 1;
}

static int read_stories(orl_dataset *data, const char *path, size_t words) {
    static const char mark[] = "<|endoftext|>";
    size_t bytes, rows = 0, skipped = 0;
    char *text = read_all(path, &bytes), *story = text, *end;
    if (!text) return 0;
    for (; story; story = end) {
        end = strstr(story, mark);
        if (end) *end = 0, end += sizeof mark - 1;
        if (add_story(data, story, words)) rows++;
        else skipped += story[strspn(story, " \t\r\n")] != 0;
    }
    fprintf(stderr, "%zu stories, %zu more left out: they have no second sentence\n", rows, skipped);
    free(text);
    return 1;
}

/* ---- the program ---- */

static int usage(void) {
    fprintf(stderr, "usage: valence --lexicon FILE [--data FILE.jsonl] [--out FILE.jsonl]\n"
                    "       valence --stories FILE.txt [--words 60] [--out FILE.jsonl]\n");
    return 2;
}

static orl_dataset *read_rows(orl_ctx *ctx) { /* from standard input */
    size_t bytes;
    char *text = read_all("-", &bytes);
    orl_dataset *data = text ? orl_dataset_parse(ctx, text, bytes, "standard input") : NULL;
    free(text);
    return data;
}

static void write_rows(const orl_dataset *data, const char *out) {
    size_t i;
    if (strcmp(out, "-") != 0) {
        orl_dataset_save(data, out);
        return;
    }
    for (i = 0; i < orl_dataset_count(data); i++) {
        char *json = orl_dataset_row_json(data, i);
        if (json) puts(json);
        orl_free(orl_dataset_ctx(data), json);
    }
}

int main(int argc, char **argv) {
    const char *lexicon_file = NULL, *stories = NULL, *in = "-", *out = "-";
    size_t words = 60;
    int i, ok = 0;
    orl_ctx *ctx = NULL;
    orl_dataset *data = NULL;
    lexicon lex = {NULL, NULL, 0};
    for (i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--lexicon") == 0) lexicon_file = argv[i + 1];
        else if (strcmp(argv[i], "--stories") == 0) stories = argv[i + 1];
        else if (strcmp(argv[i], "--data") == 0) in = argv[i + 1];
        else if (strcmp(argv[i], "--out") == 0) out = argv[i + 1];
        else if (strcmp(argv[i], "--words") == 0) words = (size_t)strtoul(argv[i + 1], NULL, 10);
        else return usage();
    }
    if (i != argc || !words || !lexicon_file == !stories) return usage(); /* one of the two */
    ctx = orl_create(NULL);
    if (stories) {
        data = orl_dataset_create(ctx);
        ok = read_stories(data, stories, words);
    } else if (read_lexicon(lexicon_file, &lex)) {
        data = strcmp(in, "-") == 0 ? read_rows(ctx) : orl_dataset_load(ctx, in);
        reward_rows(data, &lex);
        ok = data != NULL || orl_failed(ctx);
    }
    if (ok) write_rows(data, out);
    if (orl_failed(ctx)) fprintf(stderr, "valence: %s\n", orl_error(ctx));
    ok = ok && !orl_failed(ctx);
    orl_destroy(ctx);
    free(lex.words);
    free(lex.text);
    return ok ? 0 : 1;
}
