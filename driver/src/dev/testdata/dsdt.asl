// The DSDT of a board with one virtio-mmio device. `iasl dsdt.asl` makes dsdt.aml, which the test
// of acpi.rs compares with what the program assembles.
DefinitionBlock ("dsdt.aml", "DSDT", 2, "COLINX", "CLTBOARD", 0x00000001)
{
    Scope (\_SB)
    {
        Device (COM1)
        {
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, One)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x03F8, 0x03F8, 0x00, 0x08)
                IRQNoFlags () {4}
            })
        }
        Device (RTC)
        {
            Name (_HID, EisaId ("PNP0B00"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0070, 0x0070, 0x00, 0x02)
            })
        }
        Device (VR00)
        {
            Name (_HID, "LNRO0005")
            Name (_UID, Zero)
            Name (_CCA, One)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, 0xD0000000, 0x00001000)
                Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) {0x00000010}
            })
        }
    }
    Name (\_S5, Package (0x04) { 0x05, Zero, Zero, Zero })
}
