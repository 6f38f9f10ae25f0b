/* Shows the time in UTC; with --built, the day this program was built and from which file. */
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* What a compiler puts into a program unless it is told otherwise: a date, a path, and,
   through the debugging information, an identifier that is a hash of both. */
static const char built[] = __DATE__ " " __TIME__ " from " __FILE__;

int main(int count, char **words)
{
    char text[sizeof "2026-11-22 20:00:00 UTC"];
    time_t now = time(NULL);
    struct tm parts;

    if (count == 2 && strcmp(words[1], "--built") == 0) {
        puts(built);
        return 0;
    }
    assert(gmtime_r(&now, &parts) != NULL);
    if (strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts) == 0)
        return 1;
    puts(text);
    return 0;
}
