import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedOutputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.lang.reflect.Field;
import java.lang.reflect.ParameterizedType;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.record.internal.MemoryRecords;

/** Makes nested.bin, refused.bin and records.bin with Apache Kafka's own classes; see README.md. */
public class Vectors {
    static final ObjectMapper MAPPER = new ObjectMapper().configure(JsonParser.Feature.ALLOW_COMMENTS, true);
    static final JsonNodeFactory NODES = JsonNodeFactory.instance;
    static final Random RANDOM = new Random(43);

    record Schema(JsonNode json, Class<?> type, Class<?> converter, Map<String, JsonNode> common) {
        String name() { return json.get("name").asText(); }
        String kind() { return json.get("type").asText(); }
        int[] valid() { return range(json, "validVersions", 0); }
        boolean api() { return kind().equals("request") || kind().equals("response"); }
    }

    static int[] range(JsonNode node, String field, int open) {
        JsonNode text = node.get(field);
        if (text == null || text.asText().equals("none")) return new int[] {1, 0};
        String s = text.asText();
        if (s.endsWith("+")) return new int[] {Integer.parseInt(s.substring(0, s.length() - 1)), open};
        int dash = s.indexOf('-');
        if (dash < 0) return new int[] {Integer.parseInt(s), Integer.parseInt(s)};
        return new int[] {Integer.parseInt(s.substring(0, dash)), Integer.parseInt(s.substring(dash + 1))};
    }

    static boolean in(JsonNode field, String key, int version) {
        int[] r = range(field, key, Short.MAX_VALUE);
        return version >= r[0] && version <= r[1];
    }

    static boolean tagged(JsonNode field, int version) {
        return field.has("tag") && in(field, "taggedVersions", version);
    }

    static boolean present(JsonNode field, int version) {
        return tagged(field, version) || in(field, "versions", version);
    }

    static String lower(String s) {
        return Character.toLowerCase(s.charAt(0)) + s.substring(1);
    }

    static List<Schema> load(String[] jars) throws Exception {
        Map<String, Schema> all = new TreeMap<>();
        for (String path : jars) {
            try (JarFile jar = new JarFile(path)) {
                for (JarEntry entry : Collections.list(jar.entries())) {
                    if (!entry.getName().startsWith("common/message/") || !entry.getName().endsWith(".json")) continue;
                    JsonNode json;
                    try (InputStream in = jar.getInputStream(entry)) { json = MAPPER.readTree(in); }
                    String kind = json.get("type").asText();
                    if (kind.equals("header") || json.get("validVersions").asText().equals("none")) continue;
                    Map<String, JsonNode> common = new HashMap<>();
                    for (JsonNode c : json.path("commonStructs")) common.put(c.get("name").asText(), c);
                    String name = json.get("name").asText();
                    boolean api = kind.equals("request") || kind.equals("response");
                    String simple = name + (api ? "Data" : "");
                    String pack = "org.apache.kafka.common.message.";
                    for (String coordinator : new String[] {"group", "transaction", "share"}) {
                        if (path.contains("kafka-" + coordinator + "-coordinator")) pack = "org.apache.kafka.coordinator." + coordinator + ".generated.";
                    }
                    all.put(name, new Schema(json, Class.forName(pack + simple), Class.forName(pack + simple + "JsonConverter"), common));
                }
            }
        }
        return new ArrayList<>(all.values());
    }

    // Random values, through the JSON converters.

    static JsonNode value(Schema s, String type, JsonNode field, int version) {
        if (type.startsWith("[]")) {
            ArrayNode array = NODES.arrayNode();
            for (int n = RANDOM.nextInt(4); n > 0; n--) array.add(value(s, type.substring(2), field, version));
            return array;
        }
        switch (type) {
            case "bool": return NODES.booleanNode(RANDOM.nextBoolean());
            case "int8": return NODES.numberNode((short) (byte) RANDOM.nextInt());
            case "int16": return NODES.numberNode((short) RANDOM.nextInt());
            case "uint16": return NODES.numberNode(RANDOM.nextInt(65536));
            case "int32": return NODES.numberNode(RANDOM.nextInt());
            case "uint32": return NODES.numberNode(RANDOM.nextInt() & 0xffffffffL);
            case "int64": return NODES.numberNode(RANDOM.nextLong());
            case "float64": return NODES.numberNode(RANDOM.nextDouble());
            case "uuid": return NODES.textNode(new Uuid(RANDOM.nextLong(), RANDOM.nextLong()).toString());
            case "string": return NODES.textNode("é".repeat(RANDOM.nextInt(3)) + "x".repeat(RANDOM.nextInt(6) == 0 ? 140 : RANDOM.nextInt(8)));
            case "bytes": case "records": {
                byte[] bytes = new byte[RANDOM.nextInt(8) == 0 ? 200 : RANDOM.nextInt(20)];
                RANDOM.nextBytes(bytes);
                return NODES.binaryNode(bytes);
            }
            default: return object(s, fields(s, type, field), version);
        }
    }

    static JsonNode fields(Schema s, String type, JsonNode field) {
        return field.has("fields") ? field.get("fields") : s.common.get(type).get("fields");
    }

    static ObjectNode object(Schema s, JsonNode fields, int version) {
        ObjectNode out = NODES.objectNode();
        for (JsonNode f : fields) {
            if (!present(f, version) || tagged(f, version) && RANDOM.nextBoolean()) continue;
            boolean nil = in(f, "nullableVersions", version) && RANDOM.nextInt(3) == 0;
            out.set(lower(f.get("name").asText()), nil ? NODES.nullNode() : value(s, f.get("type").asText().trim(), f, version));
        }
        return out;
    }

    static Message random(Schema s, int version) throws Exception {
        return (Message) s.converter.getMethod("read", JsonNode.class, short.class).invoke(null, object(s, s.json.get("fields"), version), (short) version);
    }

    // Default values, with one element in every array.

    @SuppressWarnings("unchecked")
    static void fill(Schema s, Message message, JsonNode fields, int version) throws Exception {
        for (JsonNode f : fields) {
            if (!present(f, version)) continue;
            Field java = message.getClass().getDeclaredField(lower(f.get("name").asText()));
            java.setAccessible(true);
            String type = f.get("type").asText().trim();
            Object value = java.get(message);
            if (type.equals("records")) {
                if (value == null && !in(f, "nullableVersions", version)) java.set(message, MemoryRecords.EMPTY);
            } else if (type.startsWith("[]")) {
                if (value == null) continue;
                Object element = element(java, type.substring(2));
                if (element instanceof Message m) fill(s, m, fields(s, type.substring(2), f), version);
                ((Collection<Object>) value).add(element);
            } else if (value instanceof Message m) {
                fill(s, m, fields(s, type, f), version);
            }
        }
    }

    static Object element(Field list, String type) throws Exception {
        switch (type) {
            case "int8": return (byte) 0;
            case "int16": return (short) 0;
            case "int32": return 0;
            case "int64": return 0L;
            case "string": return "";
            case "uuid": return Uuid.ZERO_UUID;
            default:
                java.lang.reflect.Type generic = list.getGenericType();
                if (!(generic instanceof ParameterizedType)) generic = list.getType().getGenericSuperclass();
                Class<?> c = (Class<?>) ((ParameterizedType) generic).getActualTypeArguments()[0];
                return c.getConstructor().newInstance();
        }
    }

    static byte[] encode(Message message, int version) {
        ByteBuffer buffer = MessageUtil.toByteBufferAccessor(message, (short) version).buffer();
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        return bytes;
    }

    static boolean accepts(Schema s, int version, byte[] body) throws Exception {
        Message message = (Message) s.type.getConstructor().newInstance();
        ByteBuffer buffer = ByteBuffer.wrap(body);
        try {
            message.read(new ByteBufferAccessor(buffer), (short) version);
        } catch (RuntimeException | OutOfMemoryError e) {
            return false;
        }
        return buffer.remaining() == 0;
    }

    static byte[] mutate(byte[] body) {
        byte[] out = body.clone();
        int at = out.length == 0 ? 0 : RANDOM.nextInt(out.length);
        switch (RANDOM.nextInt(out.length == 0 ? 1 : 6)) {
            case 0: return java.util.Arrays.copyOf(out, out.length + 1 + RANDOM.nextInt(3));
            case 1: return java.util.Arrays.copyOf(out, at);
            case 2: out[at] ^= (byte) (1 << RANDOM.nextInt(8)); return out;
            case 3: out[at] = new byte[] {0, 1, 2, 0x7f, (byte) 0x80, (byte) 0xff}[RANDOM.nextInt(6)]; return out;
            case 4: for (int i = at; i < Math.min(out.length, at + 4); i++) out[i] = (byte) 0xff; return out;
            default:
                byte[] longer = new byte[out.length + 2];
                System.arraycopy(out, 0, longer, 0, at);
                RANDOM.nextBytes(longer);
                System.arraycopy(out, 0, longer, 0, at);
                System.arraycopy(out, at, longer, at + 2, out.length - at);
                return longer;
        }
    }

    static void put(DataOutputStream out, Schema s, int version, int flags, byte[] body) throws IOException {
        out.writeByte(s.kind().equals("response") ? 1 : 0);
        out.writeShort(s.json.get("apiKey").asInt());
        out.writeShort(version);
        out.writeByte(flags);
        out.writeInt(body.length);
        out.write(body);
    }

    static DataOutputStream file(String name) throws IOException {
        return new DataOutputStream(new BufferedOutputStream(new FileOutputStream(name)));
    }

    public static void main(String[] jars) throws Exception {
        int[] made = new int[4];
        try (DataOutputStream nested = file("nested.bin"); DataOutputStream refused = file("refused.bin"); DataOutputStream records = file("records.bin")) {
            for (Schema s : load(jars)) {
                for (int version = s.valid()[0]; version <= s.valid()[1]; version++) {
                    if (!s.api()) {
                        for (int i = 0; i < 8; i++) {
                            byte[] body = encode(random(s, version), version);
                            records.writeByte(s.name().length());
                            records.writeBytes(s.name());
                            records.writeShort(version);
                            records.writeInt(body.length);
                            records.write(body);
                            made[3]++;
                        }
                        continue;
                    }
                    Message message = (Message) s.type.getConstructor().newInstance();
                    fill(s, message, s.json.get("fields"), version);
                    put(nested, s, version, 0, encode(message, version));
                    made[0]++;
                    int no = 0, yes = 0;
                    for (int i = 0; i < 200 && (no < 5 || yes < 2); i++) {
                        byte[] body = mutate(encode(random(s, version), version));
                        if (body.length > 150) continue;
                        boolean accepted = accepts(s, version, body);
                        if (accepted ? yes++ < 2 : no++ < 5) {
                            put(refused, s, version, accepted ? 1 : 0, body);
                            made[accepted ? 2 : 1]++;
                        }
                    }
                }
            }
        }
        System.out.printf("nested %d, refused %d, accepted %d, records %d%n", made[0], made[1], made[2], made[3]);
    }
}
