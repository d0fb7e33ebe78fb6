// A program: counts the bytes of its input, and ends with its first argument as the exit code.
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    char buffer[4096];
    size_t total = 0, read;
    while ((read = fread(buffer, 1, sizeof buffer, stdin)) > 0) total += read;
    printf("{\"bytes\": %zu, \"mapped\": \"%s\"}\n", total, getenv("FUNCTION_NAME"));
    return argc > 1 ? atoi(argv[1]) : 0;
}
