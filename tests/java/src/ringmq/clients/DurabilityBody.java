package ringmq.clients;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * The body of one numbered message of one run: {@code <run> <number> <letters derived from the number>}. Two
 * messages never have the same body, and whether a body is the right one can be told from the body alone.
 */
final class DurabilityBody {
    private DurabilityBody() {}

    static byte[] encode(String run, long number, int size_bytes) {
        byte[] body = new byte[size_bytes];
        byte[] head = (run + " " + number + " ").getBytes(StandardCharsets.US_ASCII);
        System.arraycopy(head, 0, body, 0, head.length);
        long state = number * 0x9E3779B97F4A7C15L + 1;
        for (int i = head.length; i < size_bytes; i++) {
            state ^= state << 13;
            state ^= state >>> 7;
            state ^= state << 17;
            body[i] = (byte) ('a' + (state >>> 33) % 26);
        }
        return body;
    }

    /** The number of a body of this run, or -1 when it is not exactly what {@link #encode} made. */
    static long number(String run, byte[] body) {
        String[] words = new String(body, StandardCharsets.US_ASCII).split(" ", 3);
        if (words.length != 3 || !words[0].equals(run)) {
            return -1;
        }
        try {
            long number = Long.parseLong(words[1]);
            return Arrays.equals(body, encode(run, number, body.length)) ? number : -1;
        } catch (NumberFormatException foreign) {
            return -1;
        }
    }
}
