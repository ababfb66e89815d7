-- Buckets as a list, for scripts that are run seldom.

-- Where the numbers of a rule are in the table that they are unpacked into, behind what is found
-- out of the bucket.
local LEVEL, FRACTION, AT, EXPIRY = 1, 2, 3, 4
local KIND, DIM, HARD, AMOUNT, FULL, PERIOD, NEED, KEY, NEXT = 5, 6, 7, 8, 9, 10, 11, 12, 13

-- rules are the buckets of a reservation, and their keys.
local function rules(value, pos, last)
  local list, keys, n = {}, {}, 0
  while pos < last do
    local b = {0, 0, 0, 0, unpacked(RULE, value, pos)}
    pos, n = b[NEXT], n + 1
    list[n], keys[n] = b, b[KEY]
  end
  return list, keys
end

-- look finds out of a bucket, put writes it.
local function look(b, state)
  local kind, amount, full, period = b[KIND], b[AMOUNT], b[FULL], b[PERIOD]
  --#refill
  b[LEVEL], b[FRACTION], b[AT], b[EXPIRY] = level, fraction, at, expiry
end

local function put(b)
  local level, fraction, at, expiry = b[LEVEL], b[FRACTION], b[AT], b[EXPIRY]
  local kind, amount, full, period = b[KIND], b[AMOUNT], b[FULL], b[PERIOD]
  --#lasting
  local state = pack(BUCKET, level, fraction, at, expiry)
  if longer then return call('SET', b[KEY], state, 'PX', math.ceil((expiry - now) / 1000)) end
  call('SETRANGE', b[KEY], '0', state)
end
