/* Linear regression in C, trained by all containers of a job together: each takes every n-th row, and the exchange adds
 * up the gradients. The first half of this file is the client: HTTP over the Unix socket, as docs/exchange.md has it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int hub = -1;

static const char *setting(const char *variable, const char *otherwise) {
    const char *value = getenv(variable);
    return value && *value ? value : otherwise;
}

/* Say what is wrong where the platform looks for it, and end. The hub sees that we hang up, and tells the others. */
static void fail(const char *format, ...) {
    char path[4096];
    snprintf(path, sizeof path, "%s/failure", setting("SM_OUTPUT_DIR", "/opt/ml/output"));
    FILE *files[] = {stderr, fopen(path, "w")};
    for (int i = 0; i < 2 && files[i]; i++) {
        va_list arguments;
        va_start(arguments, format);
        vfprintf(files[i], format, arguments);
        va_end(arguments);
        fputc('\n', files[i]);
        fflush(files[i]);
    }
    exit(1);
}

static void send_all(const char *data, size_t size) {
    for (ssize_t n; size; data += n, size -= n)
        if ((n = send(hub, data, size, MSG_NOSIGNAL)) <= 0) fail("the exchange has hung up");
}

static void receive_all(char *data, size_t size) {
    for (ssize_t n; size; data += n, size -= n)
        if ((n = recv(hub, data, size, 0)) <= 0) fail("the exchange has hung up");
}

/* POST `body` to `path`; the answer, which has at most `room` bytes, goes to `answer`. Errors end the program. */
static void post(const char *path, const void *body, size_t size, void *answer, size_t room) {
    char head[2048];
    int length = snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nContent-Length: %zu\r\n\r\n", path, size);
    send_all(head, length);
    send_all(body, size);
    for (length = 0; length < 4 || memcmp(head + length - 4, "\r\n\r\n", 4); length++) {
        if (length == sizeof head - 1) fail("the exchange's answer has too long a head");
        receive_all(head + length, 1);
    }
    head[length] = 0;
    char *field = strcasestr(head, "\r\ncontent-length:");
    size_t coming = field ? strtoul(field + 17, NULL, 10) : 0;
    if (strncmp(head, "HTTP/1.1 200", 12)) {
        char reason[4096] = "";
        receive_all(reason, coming < sizeof reason ? coming : sizeof reason - 1);
        fail("%s: %s", path, reason);
    }
    if (coming > room) fail("%s: an answer of %zu bytes where %zu were expected", path, coming, room);
    receive_all(answer, coming);
}

static void join(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *folder = setting("RAYMAKER_EXCHANGE", "/opt/ml/exchange");
    char body[64], answer[65536];
    snprintf(address.sun_path, sizeof address.sun_path, "%s/exchange.sock", folder);
    hub = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(hub, (struct sockaddr *)&address, sizeof address)) fail("there is no exchange at %s", address.sun_path);
    int size = snprintf(body, sizeof body, "{\"pid\": %d, \"arena\": false}", getpid());
    post("/join", body, size, answer, sizeof answer);
}

static void all_reduce(float *values, int count) {
    post("/all-reduce?op=sum&dtype=float32", values, count * sizeof *values, values, count * sizeof *values);
}

/* ---- the training ---- */

enum { MAX_COLUMNS = 256 };
static float (*rows)[MAX_COLUMNS];
static int row_count, columns, seen, rank, world_size;

/* hyperparameters.json is a flat object of strings: find "name": "value". */
static float hyperparameter(const char *name, float otherwise) {
    char path[4096], quoted[128], text[65536];
    snprintf(path, sizeof path, "%s/hyperparameters.json", setting("SM_INPUT_CONFIG_DIR", "/opt/ml/input/config"));
    FILE *file = fopen(path, "r");
    if (!file) return otherwise;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    char *at = strstr(text, quoted);
    if (!at || !(at = strchr(at + strlen(quoted), ':'))) return otherwise;
    return strtof(at + 1 + strspn(at + 1, " \""), NULL);
}

/* Numbers of one CSV line; -1 where something else stands there. */
static int parse_row(const char *line, float *values) {
    int count = 0;
    for (char *end; *line && *line != '\n' && *line != '\r'; line = end) {
        if (count == MAX_COLUMNS) return -1;
        values[count++] = strtof(line, &end);
        if (end == line) return -1;
        if (*end == ',') end++;
        else if (*end && *end != '\n' && *end != '\r') return -1;
    }
    return count;
}

/* The target first. Every rank sees all rows and keeps those that are its own. */
static void read_rows(const char *path) {
    char *line = NULL;
    size_t room = 0;
    FILE *file = fopen(path, "r");
    if (!file) fail("cannot open %s", path);
    while (getline(&line, &room, file) > 0) {
        float row[MAX_COLUMNS];
        int count = parse_row(line, row);
        if (count == 0) continue;
        if (!columns) columns = count;
        if (count < 2 || count != columns) fail("%s: a row is not %d numbers", path, columns);
        if (seen++ % world_size != rank) continue;
        rows = realloc(rows, (row_count + 1) * sizeof *rows);
        if (!rows) fail("out of memory after %d rows", row_count);
        memcpy(rows[row_count++], row, sizeof row);
    }
    free(line);
    fclose(file);
}

int main(void) {
    const char *channel = setting("SM_CHANNEL_TRAIN", "/opt/ml/input/data/train");
    int steps = (int)hyperparameter("steps", 500);
    float rate = hyperparameter("learning_rate", 0.1f), weights[MAX_COLUMNS] = {0}, sums[MAX_COLUMNS + 2];
    rank = atoi(setting("RANK", "0"));
    world_size = atoi(setting("WORLD_SIZE", "1"));

    struct dirent **names;
    char path[4096];
    int files = scandir(channel, &names, NULL, alphasort);
    if (files < 0) fail("there is no channel `train` at %s", channel);
    for (int i = 0; i < files; i++) {
        const char *ending = strrchr(names[i]->d_name, '.');
        snprintf(path, sizeof path, "%s/%s", channel, names[i]->d_name);
        if (ending && !strcmp(ending, ".csv")) read_rows(path);
    }
    if (!columns) fail("no rows: the channel `train` holds no *.csv file");
    printf("rank %d of %d: %d rows with %d features\n", rank, world_size, row_count, columns - 1);

    join();
    for (int step = 1; step <= steps; step++) {
        /* The gradient of the squared error: of the bias at 0, of the weights after it; then the error and the rows. */
        memset(sums, 0, sizeof sums);
        for (int i = 0; i < row_count; i++) {
            float error = weights[0] - rows[i][0];
            for (int j = 1; j < columns; j++) error += weights[j] * rows[i][j];
            sums[0] += error;
            for (int j = 1; j < columns; j++) sums[j] += error * rows[i][j];
            sums[columns] += error * error;
        }
        sums[columns + 1] = row_count;
        all_reduce(sums, columns + 2);
        for (int j = 0; j < columns; j++) weights[j] -= rate * sums[j] / sums[columns + 1];
        if (step % 100 == 0 || step == steps) printf("step=%d loss=%g\n", step, sums[columns] / sums[columns + 1]);
        fflush(stdout);
    }
    if (rank == 0) { /* all ranks hold the same weights, bit by bit */
        snprintf(path, sizeof path, "%s/model.txt", setting("SM_MODEL_DIR", "/opt/ml/model"));
        FILE *file = fopen(path, "w");
        if (!file) fail("cannot write %s", path);
        for (int j = 0; j < columns; j++) fprintf(file, "%.9g\n", weights[j]);
        if (fclose(file)) fail("cannot write %s", path);
    }
    post("/leave", "", 0, path, sizeof path); /* from here on nobody minds that we end */
    return 0;
}
