-- Posts one row to the ledger of a tenant, inside a script that has decided that the row
-- counts. It is put in front of such scripts; (Retention).Lua gives it with its limits.
--
--   ledger_post(p, us, row)
--     p    prefix of the tenant's ledger keys: "<prefix>{o:<org>}:l", made by Slot and
--          Shelf. All keys written are below it, so they share the tenant's hash slot.
--          Their names depend on the time; declare any key of the slot to route the script.
--     us   time of posting in microseconds since 1970 (UTC): a number, from TIME.
--     row  what Encode made of a Row. Opaque, binary.
--   Writes always. That an id is posted once is the caller's to guard.
--
--   ledger_used(row, requests, input, output, frames, money) -> row
--     The same row with other amounts, for a call whose replica died: encode it with
--     End "lost" when the call is reserved, and put in what is known to be used.
--
-- Writes:
--   p:rows        stream, one entry per row: t = us, r = row. Bounded in rows (roughly: whole
--                 nodes of the stream are cut) and in age.
--   p:h:<hour>    hash of one hour since 1970: name of the sum -> ten sums. When the hour has
--                 `names` fields, new ones are summed by key, user and team alone; at twice
--                 that, in one field with an empty name. Expires.
-- Expiry and age are seen to when an hour gets a new name, so at least once in each hour
-- with a call. Time is in seconds. Numbers are exact to 2^53.

local ledger_format = '<i8i8i8i8i8i8i8i8i8i8'

local function ledger_field(key, row)
  local whole, short = struct.unpack('<I2I2', row, 82)
  local name = string.sub(row, 86, 85 + whole)
  local old = redis.call('HGET', key, name)
  if old then return name, old end
  local held = redis.call('HLEN', key)
  if held < ledger_names then return name, old end
  name = string.sub(row, 86, 85 + short)
  old = redis.call('HGET', key, name)
  if old or held < 2 * ledger_names then return name, old end
  return '', redis.call('HGET', key, '')
end

local function ledger_renew(p, key, us)
  redis.call('EXPIRE', key, ledger_sums_age)
  redis.call('EXPIRE', p .. ':rows', ledger_rows_age + 3600)
  local oldest = string.format('%.0f', math.floor(us / 1000) - ledger_rows_age * 1000)
  redis.call('XTRIM', p .. ':rows', 'MINID', '~', oldest)
end

local function ledger_post(p, us, row)
  local seconds = math.floor(us / 1000000)
  redis.call('XADD', p .. ':rows', 'MAXLEN', '~', ledger_rows, '*',
    't', string.format('%d%06d', seconds, us - seconds * 1000000), 'r', row)
  local key = string.format('%s:h:%d', p, math.floor(seconds / 3600))
  local name, old = ledger_field(key, row)
  if not old then
    redis.call('HSET', key, name, string.sub(row, 2, 81))
    return ledger_renew(p, key, us)
  end
  local a, b, c, d, e, f, g, h, i, j = struct.unpack(ledger_format, row, 2)
  local A, B, C, D, E, F, G, H, I, J = struct.unpack(ledger_format, old)
  redis.call('HSET', key, name, struct.pack(ledger_format,
    a + A, b + B, c + C, d + D, e + E, f + F, g + G, h + H, i + I, j + J))
end

local function ledger_used(row, requests, input, output, frames, money)
  local calls, _, _, cached, _, reasoning, _, _, estimated, micros =
    struct.unpack(ledger_format, row, 2)
  return string.sub(row, 1, 1) .. struct.pack(ledger_format, calls, requests, input, math.min(cached, input),
    output, math.min(reasoning, output), frames, money, estimated, micros) .. string.sub(row, 82)
end
