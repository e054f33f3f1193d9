/* Logistic regression in C, on the same container contract as everything else: `train` reads CSV rows (label first)
 * and hyperparameters and writes a model file; `serve` answers GET /ping and POST /invocations (text/csv).
 *
 * One program for both: it goes by the name it is called with, or by its first argument. Folders come from SM_*
 * variables where they are set, else they are the contract's own, so the same binary runs in an image and as source.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FEATURES = 1024, MAX_BODY = 8 << 20, MAX_HEAD = 16 << 10 };

typedef struct {
    int features;
    double bias, weights[MAX_FEATURES];
} Model;

typedef struct {
    size_t rows, room;
    int columns;
    double *values;
} Table;

static Model model;

static const char *setting(const char *variable, const char *otherwise) {
    const char *value = getenv(variable);
    return value && *value ? value : otherwise;
}

/* Say what is wrong where the platform looks for it, and end. */
static void fail(const char *format, ...) {
    char message[1024], path[4096];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s\n", message);
    snprintf(path, sizeof path, "%s/failure", setting("SM_OUTPUT_DIR", "/opt/ml/output"));
    FILE *file = fopen(path, "w");
    if (file) {
        fputs(message, file);
        fclose(file);
    }
    exit(1);
}

/* hyperparameters.json is a flat object of strings: find "name": "value". */
static double hyperparameter(const char *name, double otherwise) {
    char path[4096], quoted[128], text[65536];
    snprintf(path, sizeof path, "%s/hyperparameters.json", setting("SM_INPUT_CONFIG_DIR", "/opt/ml/input/config"));
    FILE *file = fopen(path, "r");
    if (!file) return otherwise;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    char *at = strstr(text, quoted);
    if (!at || !(at = strchr(at + strlen(quoted), ':'))) return otherwise;
    return strtod(at + 1 + strspn(at + 1, " \""), NULL);
}

/* Numbers of one CSV line; -1 where something else stands there. */
static int parse_row(const char *line, double *values, int most) {
    int count = 0;
    for (char *end; *line && *line != '\n' && *line != '\r'; line = end) {
        if (count == most) return -1;
        values[count++] = strtod(line, &end);
        if (end == line) return -1;
        if (*end == ',') end++;
        else if (*end && *end != '\n' && *end != '\r') return -1;
    }
    return count;
}

static void read_csv(const char *path, Table *table) {
    static double row[MAX_FEATURES + 1];
    char *line = NULL;
    size_t size = 0;
    FILE *file = fopen(path, "r");
    if (!file) fail("cannot open %s", path);
    while (getline(&line, &size, file) > 0) {
        int columns = parse_row(line, row, MAX_FEATURES + 1);
        if (columns == 0) continue;
        if (!table->columns) table->columns = columns;
        if (columns < 2 || columns != table->columns) fail("%s: a row is not %d numbers", path, table->columns);
        if (table->rows == table->room) {
            table->room = table->room ? 2 * table->room : 1024;
            table->values = realloc(table->values, table->room * columns * sizeof *row);
            if (!table->values) fail("out of memory after %zu rows", table->rows);
        }
        memcpy(table->values + table->rows++ * columns, row, columns * sizeof *row);
    }
    free(line);
    fclose(file);
}

static double probability(const Model *with, const double *features) {
    double sum = with->bias;
    for (int i = 0; i < with->features; i++) sum += with->weights[i] * features[i];
    return 1 / (1 + exp(-sum));
}

static void train(void) {
    const char *channel = setting("SM_CHANNEL_TRAIN", "/opt/ml/input/data/train");
    int epochs = (int)hyperparameter("epochs", 20);
    double rate = hyperparameter("learning_rate", 0.05);
    Table table = {0};
    struct dirent **names;
    int files = scandir(channel, &names, NULL, alphasort);
    if (files < 0) fail("there is no channel `train` at %s", channel);
    for (int i = 0; i < files; i++) {
        char path[4096];
        const char *ending = strrchr(names[i]->d_name, '.');
        snprintf(path, sizeof path, "%s/%s", channel, names[i]->d_name);
        if (ending && !strcmp(ending, ".csv")) read_csv(path, &table);
    }
    if (!table.rows) fail("no rows: the channel `train` holds no *.csv file");
    model.features = table.columns - 1;
    printf("%zu rows with %d features\n", table.rows, model.features);

    for (int epoch = 1; epoch <= epochs; epoch++) {
        double loss = 0;
        size_t right = 0;
        for (size_t row = 0; row < table.rows; row++) {
            const double *values = table.values + row * table.columns;
            double p = probability(&model, values + 1), error = p - values[0];
            for (int i = 0; i < model.features; i++) model.weights[i] -= rate * error * values[i + 1];
            model.bias -= rate * error;
            loss -= log((values[0] > 0.5 ? p : 1 - p) + 1e-12);
            right += (p > 0.5) == (values[0] > 0.5);
        }
        printf("epoch=%d loss=%.4f accuracy=%.4f\n", epoch, loss / table.rows, (double)right / table.rows);
        fflush(stdout);
    }

    char path[4096];
    snprintf(path, sizeof path, "%s/model.txt", setting("SM_MODEL_DIR", "/opt/ml/model"));
    FILE *file = fopen(path, "w");
    if (!file) fail("cannot write %s", path);
    fprintf(file, "%d %.17g\n", model.features, model.bias);
    for (int i = 0; i < model.features; i++) fprintf(file, "%.17g\n", model.weights[i]);
    if (fclose(file)) fail("cannot write %s", path);
}

static void load_model(void) {
    char path[4096];
    snprintf(path, sizeof path, "%s/model.txt", setting("SM_MODEL_DIR", "/opt/ml/model"));
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%d %lf", &model.features, &model.bias) != 2 || model.features > MAX_FEATURES)
        fail("cannot read the model %s", path);
    for (int i = 0; i < model.features; i++)
        if (fscanf(file, "%lf", &model.weights[i]) != 1) fail("%s ends too early", path);
    fclose(file);
}

static void answer(int connection, const char *status, const char *body) {
    char *text;
    int size = asprintf(&text, "HTTP/1.1 %s\r\nContent-Type: text/csv\r\nContent-Length: %zu\r\n\r\n%s", status,
                        strlen(body), body);
    for (int sent = 0, n; size > 0 && sent < size; sent += n)
        if ((n = send(connection, text + sent, size - sent, MSG_NOSIGNAL)) <= 0) break;
    free(text);
}

static void score(int connection, char *body) {
    static const char *wrong = "each line must hold as many numbers as the model has features\n";
    double row[MAX_FEATURES];
    char *out = malloc(strlen(body) * 12 + 16), *end = out, *rest = body;
    *end = 0;
    for (char *line; (line = strsep(&rest, "\n"));) {
        if (!*line || *line == '\r') continue;
        if (parse_row(line, row, MAX_FEATURES) != model.features) {
            free(out);
            return answer(connection, "400 Bad Request", wrong);
        }
        end += sprintf(end, "%.6f\n", probability(&model, row));
    }
    answer(connection, "200 OK", out);
    free(out);
}

/* One thread per connection; connections stay open between requests. */
static void *converse(void *argument) {
    int connection = (int)(long)argument;
    size_t held = 0;
    char *text = malloc(MAX_HEAD + MAX_BODY + 1), *end;
    for (;;) {
        text[held] = 0;
        while (!(end = strstr(text, "\r\n\r\n")) && held < MAX_HEAD) {
            ssize_t n = recv(connection, text + held, MAX_HEAD - held, 0);
            if (n <= 0) goto done;
            text[held += n] = 0;
        }
        if (!end) break;
        char *header = strcasestr(text, "\r\ncontent-length:");
        size_t length = header && header < end ? strtoul(header + 17, NULL, 10) : 0;
        size_t head = end + 4 - text;
        if (length > MAX_BODY) {
            answer(connection, "413 Payload Too Large", "");
            break;
        }
        while (held < head + length) {
            ssize_t n = recv(connection, text + held, head + length - held, 0);
            if (n <= 0) goto done;
            held += n;
        }
        char next = text[head + length];
        text[head + length] = 0;
        if (!strncmp(text, "GET /ping ", 10)) answer(connection, "200 OK", "");
        else if (!strncmp(text, "POST /invocations ", 18)) score(connection, text + head);
        else answer(connection, "404 Not Found", "");
        text[head + length] = next;
        held -= head + length;
        memmove(text, text + head + length, held);
    }
done:
    free(text);
    close(connection);
    return NULL;
}

static void stop(int number) {
    (void)number;
    _exit(0);
}

static void serve(void) {
    int port = atoi(setting("SAGEMAKER_BIND_TO_PORT", "8080")), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    load_model();
    signal(SIGTERM, stop); /* the first process of a container ignores what it does not handle */
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128))
        fail("cannot listen on port %d", port);
    printf("serving on port %d\n", port);
    fflush(stdout);
    for (;;) {
        pthread_t thread;
        int connection = accept(listener, NULL, NULL);
        if (connection < 0) continue;
        setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (pthread_create(&thread, NULL, converse, (void *)(long)connection)) close(connection);
        else pthread_detach(thread);
    }
}

int main(int count, char **arguments) {
    const char *name = strrchr(arguments[0], '/') ? strrchr(arguments[0], '/') + 1 : arguments[0];
    const char *verb = !strcmp(name, "train") || !strcmp(name, "serve") ? name : count > 1 ? arguments[1] : "";
    if (!strcmp(verb, "train")) train();
    else if (!strcmp(verb, "serve")) serve();
    else {
        fprintf(stderr, "usage: linear train | serve\n");
        return 2;
    }
    return 0;
}
