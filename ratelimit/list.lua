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
  b[LEVEL], b[FRACTION], b[AT], b[EXPIRY] = refill(state, b[KIND], b[AMOUNT], b[FULL], b[PERIOD])
end

local function put(b)
  local expiry, anew = lasting(b[LEVEL], b[AT], b[EXPIRY], b[KIND], b[AMOUNT], b[FULL], b[PERIOD])
  store(b[KEY], pack(BUCKET, b[LEVEL], b[FRACTION], b[AT], expiry), anew and expiry)
end
