package ringmq.apache;

import com.alibaba.fastjson2.JSON;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import org.apache.rocketmq.broker.filter.MessageEvaluationContext;
import org.apache.rocketmq.filter.FilterFactory;
import org.apache.rocketmq.filter.expression.Expression;
import org.apache.rocketmq.filter.expression.MQFilterException;

/**
 * Writes what RocketMQ's own SQL92 filter makes of expressions: those below, and random ones from a fixed seed.
 *
 * JSON lines: first the messages, {"message":{property:value,..}}, then {"expression":"..","answers":".."}. An expression
 * that RocketMQ refuses has the answer "X"; any other one letter per message: T(rue), F(alse), N(ull), E(xception).
 * `tests/filter-answers` runs it and puts the lines where the broker's test reads them.
 */
public class FilterAnswers {
    private static final long SEED = 20_261_128;
    private static final int MESSAGES = 40;
    private static final int FROM_GRAMMAR = 700;
    private static final int FROM_TOKENS = 250;
    private static final int WITH_A_SLIP = 250;

    private static final String[] NAMES = {"a", "b", "c", "A", "region", "TAGS", "x_1", "$p"};
    private static final String[] VALUES = {
        "0", "1", "2", "5", "10", "-5", "+3", "007", "1.5", "-0.0", "0.0", "1e3", "1.", ".5", " 5 ", "5L", "1f", "2d",
        "0x1p3", "0x1.8p1", "NaN", "Infinity", "-Infinity", "2147483647", "2147483648", "-2147483648",
        "9223372036854775807", "9223372036854775808", "1e400", "1e-400", "abc", "ABC", "abcabc", "ab", "bc", "it's",
        "true", "TRUE", "True", "false", "null", "east", "west", "TagA", "TagB", "\u4e2d\u6587", "a b", "%", "'", "-",
    };
    private static final String[] NUMBERS = {
        "0", "1", "2", "5", "10", "100", "1L", "7l", "2147483647", "2147483648", "9223372036854775807",
        "9223372036854775808", "1.5", "0.5", ".5", "1.", "1e3", "1E-2", "1.5e+2", "0.0", "1e400", "1e-400", "5e-324",
        "1.7976931348623157E308", "007", "0L", "00.5",
    };
    private static final String[] TEXTS = {
        "'abc'", "'ab'", "'bc'", "''", "'it''s'", "''''", "'1'", "'5'", "'1.5'", "'true'", "'TRUE'", "'east'",
        "'\u4e2d'", "'a b'", "'TagA'", "'%'",
    };
    private static final String[] TOKENS = {
        "AND", "OR", "NOT", "IN", "IS", "NULL", "BETWEEN", "CONTAINS", "STARTSWITH", "ENDSWITH", "TRUE", "FALSE", "and",
        "Or", "not", "is", "null", "=", "<>", "<", "<=", ">", ">=", "(", ")", ",", "+", "-", "a", "b", "region", "1", "5",
        "1.5", "'abc'", "'5'", "/* c */", "-- c\n", "\t", "!", "/", "LIKE",
    };

    private static final String[] WRITTEN = {
        // Comparisons with numbers, and what is no number.
        "a = 5", "a <> 5", "a > 5", "a >= 5", "a < 5", "a <= 5", "5 = a", "5 < a", "5 >= a", "a = 5.0", "a > 5.0",
        "a = 1.5", "a > 1.5", "a = 2147483648", "a > 2147483648", "2147483648 > a", "a = 0x1p3", "a > .5", "a > 1.",
        "a > 1e3", "a < 1e-3", "a = -5", "a = - 5", "a > -5", "a = +3", "a = + + 3", "a = - - 3", "a = -(5)", "-5 < a",
        "- a = 5", "-a = -5", "-'5' = a", "-TRUE IS NULL", "- NULL IS NULL", "-5 = -5", "-5.0 = -5", "-0.5 < a",
        "5 = 5", "5 = 5.0", "5 = 5L", "5 > 3", "5 < 3", "2147483648 > 2147483647", "2147483648 = 2147483648.0",
        "1.5 > 1", "1 < 1.5", "1.5 = 1.5", "9223372036854775807 > 1.5", "a > 9223372036854775807", "9223372036854775808 > a",
        "-9223372036854775808 < a", "a > b", "a >= b", "a < b", "a <= b", "a = b", "a <> b", "a = a", "a > a", "a >= a",
        "missing = 1", "missing <> 1", "1 = missing", "1 <> missing", "missing > 1", "1 > missing", "missing = missing",
        "missing <> missing", "missing = a", "a = missing", "a <> missing", "missing > missing", "a > missing",
        // Texts.
        "a = 'abc'", "a <> 'abc'", "'abc' = a", "a = 'it''s'", "a = ''", "a = ''''", "a > 'abc'", "'abc' < a", "'a' = 'a'",
        "'a' = 'b'", "'a' = 5", "5 = 'a'", "'5' = 5", "5 = '5'", "'5' = 5.0", "5.0 = '5'", "'abc' = 5", "a = \"abc\"",
        "a = 'abc", "a = 'a\nb'", "a = '\u4e2d\u6587'", "\u4e2d = 1", "a = '/* no comment */'", "a = '-- no comment'",
        "a = 'b' AND FALSE ''x", "NO' = ''''", "a = 'b''c AND 'd'",
        // Truth values.
        "a = TRUE", "a = FALSE", "a <> TRUE", "a <> FALSE", "TRUE = a", "FALSE = a", "TRUE <> a", "TRUE", "FALSE", "NULL",
        "true", "False", "nULL", "NOT TRUE", "NOT FALSE", "NOT NULL", "NOT NOT TRUE", "TRUE = TRUE", "TRUE = FALSE",
        "TRUE <> FALSE", "TRUE = 1", "1 = TRUE", "1 <> TRUE", "TRUE = 'true'", "'true' = TRUE", "'x' = TRUE", "1.5 = FALSE",
        "TRUE > FALSE", "a > TRUE", "a = NULL", "a <> NULL", "NULL = a", "NULL = NULL", "NULL <> 1", "a", "NOT a", "NOT a = 1",
        "NOT (a = 1)", "NOT(a)", "(a)", "((a))", "a AND TRUE", "a OR TRUE", "TRUE OR a", "missing", "NOT missing",
        "a = (b = 1)", "(b = 1) = a", "(b = 1) = TRUE", "(b = 1) = 5", "5 = (b = 1)", "(a = 1) = (b = 1)", "a = b = TRUE",
        "a = 5 = TRUE", "a = 5 = FALSE", "a = 5 <> b", "a > 1 = TRUE", "a > 1 > 2", "a > (b > 1)", "(a > 1) IS NULL",
        "(a > 1) IS NOT NULL", "a > 1 IS NULL", "a = 1 IS NULL", "a IS NULL = TRUE",
        // NULL.
        "a IS NULL", "a IS NOT NULL", "missing IS NULL", "missing IS NOT NULL", "5 IS NULL", "5 IS NOT NULL", "NULL IS NULL",
        "NULL IS NOT NULL", "'a' IS NULL", "TRUE IS NULL", "a IS", "a IS NOT", "a IS TRUE", "a IS NOT TRUE", "a IS NULL IS NULL",
        "IS NULL", "a is Not nUll", "a ISNULL",
        // BETWEEN.
        "a BETWEEN 1 AND 5", "a BETWEEN 5 AND 1", "a BETWEEN 5 AND 5", "a BETWEEN 1 AND 5.5", "a BETWEEN 0.5 AND 5",
        "a BETWEEN 5.5 AND 1", "a BETWEEN -5 AND 5", "a BETWEEN 5 AND -5", "a BETWEEN b AND 5", "a BETWEEN 1 AND b",
        "a BETWEEN b AND c", "a BETWEEN 'a' AND 'b'", "a BETWEEN '1' AND '5'", "a BETWEEN NULL AND 5", "a BETWEEN 1 AND NULL",
        "a BETWEEN TRUE AND FALSE", "5 BETWEEN 1 AND 10", "5 BETWEEN 6 AND 10", "'5' BETWEEN 1 AND 10", "missing BETWEEN 1 AND 5",
        "a BETWEEN 1 AND missing", "a BETWEEN missing AND 5", "a NOT BETWEEN 1 AND 5", "a NOT BETWEEN 5 AND 1",
        "a NOT BETWEEN -5 AND 5", "missing NOT BETWEEN 1 AND 5", "a NOT BETWEEN missing AND 5", "a NOT BETWEEN 1 AND missing",
        "a NOT BETWEEN b AND c", "a BETWEEN 1 AND 5 AND b = 1", "a BETWEEN 1 OR 5", "a BETWEEN 1", "a BETWEEN 1 AND",
        "(a = 1) BETWEEN 1 AND 5", "a BETWEEN (b = 1) AND 5", "a BETWEEN 1 AND 5 BETWEEN 1 AND 2", "a BETWEEN 1 AND 2147483648",
        "a BETWEEN 2147483648 AND 1", "a NOT BETWEEN 'a' AND 'b'", "NOT a BETWEEN 1 AND 5", "NOT (a BETWEEN 1 AND 5)",
        // IN.
        "a IN ('abc')", "a IN ('abc', 'ab', '5')", "a NOT IN ('abc', '5')", "a IN ('a','b','c','d','e','abc')", "a IN ()",
        "a IN ('abc',)", "a IN (5)", "a IN (b)", "a IN 'abc'", "a IN ('abc'", "'abc' IN ('abc')", "5 IN ('5')", "(a) IN ('abc')",
        "missing IN ('abc')", "missing NOT IN ('abc')", "a IN ('it''s')", "a IN ('')", "NOT a IN ('abc')", "NOT (a IN ('abc'))",
        "a IN ('abc') = TRUE", "a IN ('abc') IN ('abc')", "-a IN ('5')", "TRUE IN ('true')", "a NOT IN ('a','b','c','d','e','abc')",
        // CONTAINS and the like.
        "a CONTAINS 'b'", "a NOT CONTAINS 'b'", "a STARTSWITH 'ab'", "a NOT STARTSWITH 'ab'", "a ENDSWITH 'bc'",
        "a NOT ENDSWITH 'bc'", "a CONTAINS ''", "a NOT CONTAINS ''", "a STARTSWITH ''", "a NOT ENDSWITH ''", "a CONTAINS b",
        "a CONTAINS 5", "'abc' CONTAINS 'b'", "'abc' STARTSWITH 'b'", "5 CONTAINS '5'", "5 NOT CONTAINS '5'",
        "missing CONTAINS 'b'", "missing NOT CONTAINS 'b'", "(a = 1) CONTAINS 'b'", "a CONTAINS 'b' = TRUE", "NOT a CONTAINS 'b'",
        "NOT (a CONTAINS 'b')", "a CONTAINS 'it''s'", "a contains '\u6587'", "a startswith 'AB'", "a CONTAINS 'a' CONTAINS 'b'",
        "a NOT", "a NOT 5", "a NOT NULL", "a NOT NOT CONTAINS 'b'", "a CONTAINS",
        // AND, OR, NOT, parentheses.
        "a = 5 AND b = 5", "a = 5 OR b = 5", "a = 5 AND b = 5 OR c = 5", "a = 5 OR b = 5 AND c = 5", "(a = 5 OR b = 5) AND c = 5",
        "NOT (a = 5 AND b = 5)", "missing = 1 AND TRUE", "missing = 1 AND FALSE", "missing = 1 OR TRUE", "missing = 1 OR FALSE",
        "FALSE AND missing = 1", "TRUE OR missing = 1", "NULL AND NULL", "NULL OR NULL", "NULL AND FALSE", "NULL OR TRUE",
        "FALSE AND a > 5", "TRUE OR a > 5", "a > 5 AND FALSE", "a > 5 OR TRUE", "NULL AND a > 5 AND FALSE", "a > 5 IS NULL OR TRUE",
        "5 AND TRUE", "TRUE AND 5", "'a' OR TRUE", "NOT 5", "NOT 'a'", "NOT -a", "-a OR TRUE", "5", "'a'", "1.5", "-5", "+a", "+TRUE",
        "- (a = 5)", "(a = 5", "a = 5)", "()", "(((a = 5)))", "AND", "a AND", "AND a", "a OR", "a AND OR b", "", " ", "\n",
        "-(-(5)) = a", "NOT NOT (a = 5)", "NOT -5 = a", "a = 5 && b = 5", "a == 5", "a != 5", "a <> 5", "a < > 5", "a => 5",
        "a LIKE 'a%'", "a + 1 = 2", "a * 2 = 4", "a % 2 = 0", "a || b", "a = 5;", "a.b = 5", "a-b = 5", "a -b", "a.", ".a", "@a = 1",
        // An expression ends where the grammar does.
        "a = 5 b = 6", "a = 5 b", "a = 5 5", "a = 5 'x'", "a = 5 (b)", "a = 5 !", "a = 5 b !", "a = 5 ! b", "a 5", "a b c",
        "a = 5L", "a = 5l", "a = 0L AND FALSE", "a = 007", "a = 00", "a = 5.L", "a = 5 -- the rest", "a = 5 -- the rest\n AND FALSE",
        "a = 5 /* c */ AND b = 5", "a = 5 /* open", "a = 5 /* ** / */ AND FALSE", "a /**/ = /***/ 5", "a = --5", "a = --5\n5",
        "-- c\n a = 5", "-- c\r a = 5", "--", "/* c */", "a = 5 /", "a = 5 - b", "a\f=\r5", "a\u00a0= 5", "a = 5 \u0000",
        "A = 5", "TAGS = 'TagA'", "tags = 'TagA'", "$p = 1", "x_1 > 1", "_ IS NULL", "$ IS NULL", "a1 IS NULL", "1a IS NULL",
        "truex = 1", "TRUE1 IS NULL", "nott IS NULL", "INx IS NULL", "a=5AND b=5", "a=5 ANDb=5", "a='abc'AND b='abc'", "a>5OR b>5",
        // Numbers at their limits.
        "a = 0.0", "a = 0", "a > 0.0", "a = 1e400", "a = 1e-400", "a > 5e-324", "a < 1.7976931348623157E308", "a > 1e308",
        "a = 9223372036854775807", "a = 99999999999999999999", "a = 1e", "a = 1e+", "a = 1.e2", "a = .e2", "a = .", "a = 1.2.3",
        "a > 1E2", "a > 1e2L", "a > 1_000", "a > 1d", "a > 1f", "a > 0x10", "a > 1.5L",
    };

    private final Random random = new Random(SEED);
    private final Set<String> expressions = new LinkedHashSet<>(List.of(WRITTEN));

    public static void main(String[] args) throws Exception {
        new FilterAnswers().write(new PrintStream(System.out, false, StandardCharsets.UTF_8));
    }

    private void write(PrintStream out) throws Exception {
        List<Map<String, String>> messages = new ArrayList<>();
        messages.add(new LinkedHashMap<>());
        while (messages.size() < MESSAGES) {
            messages.add(message());
        }
        addRandomExpressions();
        for (Map<String, String> message : messages) {
            out.println(JSON.toJSONString(Map.of("message", message)));
        }
        for (String expression : expressions) {
            Map<String, String> line = new LinkedHashMap<>();
            line.put("expression", expression);
            line.put("answers", answers(expression, messages));
            out.println(JSON.toJSONString(line));
        }
        out.flush();
    }

    private static String answers(String text, List<Map<String, String>> messages) {
        Expression expression;
        try {
            expression = FilterFactory.INSTANCE.get("SQL92").compile(text);
        } catch (MQFilterException refused) {
            return "X";
        }
        StringBuilder answers = new StringBuilder();
        for (Map<String, String> message : messages) {
            answers.append(answer(expression, message));
        }
        return answers.toString();
    }

    private static char answer(Expression expression, Map<String, String> message) {
        Object value;
        try {
            value = expression.evaluate(new MessageEvaluationContext(message));
        } catch (Exception failed) {
            return 'E';
        }
        return value == null ? 'N' : (Boolean) value ? 'T' : 'F';
    }

    private Map<String, String> message() {
        Map<String, String> message = new LinkedHashMap<>();
        for (String name : NAMES) {
            if (random.nextInt(4) != 0) {
                message.put(name, one(VALUES));
            }
        }
        return message;
    }

    private void addRandomExpressions() {
        List<String> fromGrammar = new ArrayList<>();
        while (fromGrammar.size() < FROM_GRAMMAR) {
            fromGrammar.add(condition(4));
        }
        expressions.addAll(fromGrammar);
        for (int count = 0; count < FROM_TOKENS; count++) {
            StringBuilder text = new StringBuilder();
            for (int token = 1 + random.nextInt(9); token > 0; token--) {
                text.append(one(TOKENS)).append(random.nextInt(8) == 0 ? "" : " ");
            }
            expressions.add(text.toString());
        }
        for (int count = 0; count < WITH_A_SLIP; count++) {
            StringBuilder text = new StringBuilder(fromGrammar.get(random.nextInt(FROM_GRAMMAR)));
            int at = random.nextInt(text.length());
            switch (random.nextInt(3)) {
                case 0: text.deleteCharAt(at); break;
                case 1: text.setCharAt(at, one(TOKENS).charAt(0)); break;
                default: text.insert(at, " " + one(TOKENS) + " ");
            }
            expressions.add(text.toString());
        }
    }

    private String condition(int depth) {
        switch (random.nextInt(depth == 0 ? 7 : 12)) {
            case 0: return operand(depth) + " = " + operand(depth);
            case 1: return operand(depth) + " <> " + operand(depth);
            case 2: return operand(depth) + " " + one("<", "<=", ">", ">=") + " " + number(depth);
            case 3: return operand(depth) + not() + " BETWEEN " + number(depth) + " AND " + number(depth);
            case 4: return one(NAMES) + not() + " IN (" + texts() + ")";
            case 5: return operand(depth) + not() + " " + one("CONTAINS", "STARTSWITH", "ENDSWITH") + " " + one(TEXTS);
            case 6: return operand(depth) + " IS" + not() + " NULL";
            case 7: return "(" + condition(depth - 1) + ")";
            case 8: return "NOT (" + condition(depth - 1) + ")";
            case 9: return condition(depth - 1) + " AND " + condition(depth - 1);
            case 10: return condition(depth - 1) + " OR " + condition(depth - 1);
            default: return "(" + condition(depth - 1) + ") = " + one("TRUE", "FALSE", one(NAMES));
        }
    }

    private String operand(int depth) {
        switch (random.nextInt(14)) {
            case 0: return number(depth);
            case 1: return one(TEXTS);
            case 2: return one("TRUE", "FALSE");
            case 3: return depth == 0 ? "a" : "(" + condition(depth - 1) + ")";
            default: return one(NAMES);
        }
    }

    private String number(int depth) {
        switch (random.nextInt(10)) {
            case 0: return one(NAMES);
            case 1: return "-" + one(NUMBERS);
            case 2: return "'" + one(NUMBERS) + "'";
            default: return one(NUMBERS);
        }
    }

    private String texts() {
        StringBuilder list = new StringBuilder(one(TEXTS));
        for (int more = random.nextInt(6); more > 0; more--) {
            list.append(", ").append(one(TEXTS));
        }
        return list.toString();
    }

    private String not() {
        return random.nextInt(3) == 0 ? " NOT" : "";
    }

    private String one(String... choices) {
        return choices[random.nextInt(choices.length)];
    }
}
